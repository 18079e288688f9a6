package main

import (
	"encoding/json"
	"fmt"
	"time"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionservice "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that ours stands in front of
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// newServer registers every xDS service behind the interceptor. Its limit of received bytes is gRPC's usual 4 MiB, which
// is istiod's too: requests that grow with the number of resources must stay below it.
func newServer(handlers server.Server, streams *streams) *grpc.Server {
	s := grpc.NewServer(
		grpc.StreamInterceptor(streams.intercept),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.MaxConcurrentStreams(1000),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(s, handlers)
	clusterservice.RegisterClusterDiscoveryServiceServer(s, handlers)
	endpointservice.RegisterEndpointDiscoveryServiceServer(s, handlers)
	listenerservice.RegisterListenerDiscoveryServiceServer(s, handlers)
	routeservice.RegisterRouteDiscoveryServiceServer(s, handlers)
	routeservice.RegisterVirtualHostDiscoveryServiceServer(s, handlers)
	secretservice.RegisterSecretDiscoveryServiceServer(s, handlers)
	extensionservice.RegisterExtensionConfigDiscoveryServiceServer(s, handlers)
	return s
}

// frame is one response as a test writes it. What is left out is left out of the message.
type frame struct {
	Type      string      `json:"type"` // short or full
	Version   string      `json:"version"`
	Nonce     string      `json:"nonce"`
	Resources []framePart `json:"resources"`
	Removed   []string    `json:"removed"` // delta
	Bytes     []byte      `json:"bytes"`   // base64; the whole message, in place of all above
}

type framePart struct {
	Name    string          `json:"name"`
	Version string          `json:"version"`
	TTL     string          `json:"ttl"`   // wraps it, in state of the world
	Body    json.RawMessage `json:"body"`  // with "@type"; without, a heartbeat
	URL     string          `json:"url"`   // in place of the body's type URL
	Value   []byte          `json:"value"` // base64, in place of the body's bytes
}

// scripted is a message that is bytes already.
type scripted struct {
	bytes      []byte
	url, nonce string
}

// encode makes the message's bytes for a stream of either protocol.
func (f *frame) encode(delta bool) (*scripted, error) {
	out := &scripted{url: long(f.Type), nonce: f.Nonce, bytes: f.Bytes}
	if f.Bytes != nil {
		return out, nil
	}
	var message proto.Message
	if delta {
		response := &discovery.DeltaDiscoveryResponse{
			TypeUrl: out.url, SystemVersionInfo: f.Version, Nonce: f.Nonce, RemovedResources: f.Removed,
		}
		for _, part := range f.Resources {
			resource, err := part.wrapped()
			if err != nil {
				return nil, err
			}
			response.Resources = append(response.Resources, resource)
		}
		message = response
	} else {
		response := &discovery.DiscoveryResponse{TypeUrl: out.url, VersionInfo: f.Version, Nonce: f.Nonce}
		for _, part := range f.Resources {
			boxed, err := part.boxed()
			if err == nil && part.TTL != "" {
				boxed, err = part.inEnvelope()
			}
			if err != nil {
				return nil, err
			}
			response.Resources = append(response.Resources, boxed)
		}
		message = response
	}
	var err error
	out.bytes, err = proto.Marshal(message)
	return out, err
}

// boxed is the resource itself, as it is or with another type or other bytes; nil for a heartbeat.
func (p *framePart) boxed() (*anypb.Any, error) {
	if p.Body == nil && p.Value == nil {
		return nil, nil
	}
	boxed := new(anypb.Any)
	if p.Body != nil {
		var err error
		if boxed, err = decodeAny(p.Body); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	if p.URL != "" {
		boxed.TypeUrl = long(p.URL)
	}
	if p.Value != nil {
		boxed.Value = p.Value
	}
	return boxed, nil
}

func (p *framePart) wrapped() (*discovery.Resource, error) {
	boxed, err := p.boxed()
	if err != nil {
		return nil, err
	}
	resource := &discovery.Resource{Name: p.Name, Version: p.Version, Resource: boxed}
	if p.TTL != "" {
		ttl, err := time.ParseDuration(p.TTL)
		if err != nil {
			return nil, err
		}
		resource.Ttl = durationpb.New(ttl)
	}
	return resource, nil
}

func (p *framePart) inEnvelope() (*anypb.Any, error) {
	resource, err := p.wrapped()
	if err != nil {
		return nil, err
	}
	return anypb.New(resource)
}

// post sends a frame on the newest open stream that asked for its type, and says which that was.
func (s *streams) post(f *frame) (int, error) {
	s.mu.Lock()
	var found *stream
	for _, st := range s.all {
		st.mu.Lock()
		if st.open && st.types[short(f.Type)] != nil {
			found = st
		}
		st.mu.Unlock()
	}
	s.mu.Unlock()
	if found == nil {
		return 0, fmt.Errorf("no open stream has asked for %s", f.Type)
	}
	message, err := f.encode(found.delta)
	if err != nil {
		return 0, err
	}
	return found.id, found.SendMsg(message)
}

// codec lets scripted messages pass as they are.
type codec struct{ encoding.CodecV2 }

// Marshal is encoding.CodecV2's.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if message, ours := v.(*scripted); ours {
		return mem.BufferSlice{mem.SliceBuffer(message.bytes)}, nil
	}
	return c.CodecV2.Marshal(v)
}
