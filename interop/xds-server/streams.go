package main

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streams holds every stream there was, and what tests do to them: dropping, freezing, slowing down.
type streams struct {
	raw    bool
	mu     sync.Mutex
	all    []*stream
	pause  time.Duration
	thawed chan struct{} // closed while streams may send
}

func newStreams(raw bool) *streams {
	thawed := make(chan struct{})
	close(thawed)
	return &streams{raw: raw, thawed: thawed}
}

// stream stands between gRPC and whoever answers, and notes both directions.
type stream struct {
	grpc.ServerStream
	owner  *streams
	ctx    context.Context
	drop   context.CancelFunc
	id     int
	method string
	delta  bool
	send   sync.Mutex // gRPC takes one message at a time

	mu   sync.Mutex
	open bool
	node string
	// Messages that carried a node: one is right.
	nodes int
	types map[string]*exchange
}

// exchange is what happened on one stream about one type.
type exchange struct {
	Requests  int      `json:"requests"`
	Responses int      `json:"responses"`
	Acks      int      `json:"acks"`
	Nacks     int      `json:"nacks"`
	Sent      string   `json:"sent"`     // nonce of the newest response
	Answered  string   `json:"answered"` // nonce of the newest ACK or NACK
	Version   string   `json:"version"`  // of the newest request (state of the world)
	Error     string   `json:"error"`    // of the newest NACK
	Names     []string `json:"names"`    // subscribed to, sorted; cut at 100
	Count     int      `json:"count"`    // how many names
	Known     int      `json:"known"`    // initial_resource_versions of the first request (delta)
	// Subscription changes that came on an ACK or NACK, which istiod would lose.
	Mixed int `json:"mixed"`
	names map[string]bool
}

const shown = 100

func (s *streams) intercept(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, drop := context.WithCancel(ss.Context())
	defer drop()
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	st := &stream{
		ServerStream: ss, owner: s, ctx: ctx, drop: drop, method: method, delta: strings.HasPrefix(method, "Delta"),
		open: true, types: map[string]*exchange{},
	}
	s.mu.Lock()
	st.id = len(s.all)
	s.all = append(s.all, st)
	s.mu.Unlock()
	defer st.closed()
	if s.raw {
		return st.record()
	}
	// The handler waits in RecvMsg, which no context of ours reaches: it is left behind and ends with the stream.
	ended := make(chan error, 1)
	go func() { ended <- next(srv, st) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return status.Error(codes.Unavailable, "dropped by the test")
	}
}

func (st *stream) closed() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.open = false
}

// Context ends when the stream is dropped.
func (st *stream) Context() context.Context { return st.ctx }

// record reads until the stream ends; what is sent comes from /send.
func (st *stream) record() error {
	for {
		var message any = new(discovery.DiscoveryRequest)
		if st.delta {
			message = new(discovery.DeltaDiscoveryRequest)
		}
		failed := make(chan error, 1)
		go func() { failed <- st.RecvMsg(message) }()
		select {
		case err := <-failed:
			if err != nil {
				return err
			}
		case <-st.ctx.Done():
			return status.Error(codes.Unavailable, "dropped by the test")
		}
	}
}

// RecvMsg notes what the proxy says.
func (st *stream) RecvMsg(message any) error {
	if err := st.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	switch r := message.(type) {
	case *discovery.DiscoveryRequest:
		st.hello(r.GetNode().GetId(), r.GetNode() != nil)
		e := st.about(r.GetTypeUrl())
		e.answer(r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
		e.Version = r.GetVersionInfo()
		names := map[string]bool{}
		for _, name := range r.GetResourceNames() {
			names[name] = true
		}
		e.subscribe(names)
	case *discovery.DeltaDiscoveryRequest:
		st.hello(r.GetNode().GetId(), r.GetNode() != nil)
		e := st.about(r.GetTypeUrl())
		e.answer(r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
		if e.Requests == 1 {
			e.Known = len(r.GetInitialResourceVersions())
		}
		changes := len(r.GetResourceNamesSubscribe()) + len(r.GetResourceNamesUnsubscribe())
		if r.GetResponseNonce() != "" && changes > 0 {
			e.Mixed++
		}
		for _, name := range r.GetResourceNamesSubscribe() {
			e.names[name] = true
		}
		for _, name := range r.GetResourceNamesUnsubscribe() {
			delete(e.names, name)
		}
		e.subscribe(e.names)
	}
	return nil
}

// SendMsg waits while the streams are frozen or slow, then notes what is sent.
func (st *stream) SendMsg(message any) error {
	st.owner.mu.Lock()
	thawed, pause := st.owner.thawed, st.owner.pause
	st.owner.mu.Unlock()
	select {
	case <-thawed:
	case <-st.ctx.Done():
		return st.ctx.Err()
	}
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-st.ctx.Done():
			return st.ctx.Err()
		}
	}
	st.mu.Lock()
	switch r := message.(type) {
	case *discovery.DiscoveryResponse:
		st.about(r.GetTypeUrl()).sending(r.GetNonce())
	case *discovery.DeltaDiscoveryResponse:
		st.about(r.GetTypeUrl()).sending(r.GetNonce())
	case *scripted:
		st.about(r.url).sending(r.nonce)
	}
	st.mu.Unlock()
	st.send.Lock()
	defer st.send.Unlock()
	return st.ServerStream.SendMsg(message)
}

func (st *stream) hello(id string, there bool) {
	if there {
		st.nodes++
		st.node = id
	}
}

// about is the exchange of a type; single-type streams may leave the type out.
func (st *stream) about(url string) *exchange {
	if url == "" {
		url = "unnamed/" + st.method
	}
	name := short(url)
	if st.types[name] == nil {
		st.types[name] = &exchange{Names: []string{}, names: map[string]bool{}}
	}
	return st.types[name]
}

func (e *exchange) answer(nonce, text string, failed bool) {
	e.Requests++
	switch {
	case failed:
		e.Nacks++
		e.Error = text
	case nonce != "" && nonce != e.Answered:
		e.Acks++
	}
	if nonce != "" {
		e.Answered = nonce
	}
}

func (e *exchange) subscribe(names map[string]bool) {
	e.names = names
	e.Count = len(names)
	e.Names = slices.AppendSeq([]string{}, maps.Keys(names))
	slices.Sort(e.Names)
	if len(e.Names) > shown {
		e.Names = e.Names[:shown]
	}
}

func (e *exchange) sending(nonce string) {
	e.Responses++
	e.Sent = nonce
}

// dropAll ends every stream with UNAVAILABLE.
func (s *streams) dropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.all {
		st.drop()
	}
}

// freeze makes streams take requests and send nothing, until thaw.
func (s *streams) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.thawed:
		s.thawed = make(chan struct{})
	default:
	}
}

func (s *streams) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.thawed:
	default:
		close(s.thawed)
	}
}

func (s *streams) slow(pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pause = pause
}

// report is what /streams shows of one stream.
type report struct {
	ID     int                  `json:"id"`
	Method string               `json:"method"`
	Open   bool                 `json:"open"`
	Node   string               `json:"node"`
	Nodes  int                  `json:"nodes"`
	Types  map[string]*exchange `json:"types"`
}

func (s *streams) reports() []report {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]report, 0, len(s.all))
	for _, st := range s.all {
		st.mu.Lock()
		one := report{ID: st.id, Method: st.method, Open: st.open, Node: st.node, Nodes: st.nodes, Types: map[string]*exchange{}}
		for name, e := range st.types {
			copied := *e
			one.Types[name] = &copied
		}
		st.mu.Unlock()
		all = append(all, one)
	}
	return all
}

// connections remembers the sockets, so that a test can cut them.
type connections struct {
	net.Listener
	mu   sync.Mutex
	open []net.Conn
}

// Accept is net.Listener's.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.open = append(c.open, conn)
		c.mu.Unlock()
	}
	return conn, err
}

// cut closes every connection there was, in the middle of whatever it carried.
func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close() // Already closed by its peer is fine.
	}
	c.open = nil
}
