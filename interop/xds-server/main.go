// Command xds-server is a control plane for tests and for a first try: go-control-plane's caches behind a small HTTP API.
//
// It owns what resources there are (plane.go), what becomes of each stream (streams.go, frame.go), and tells what the
// proxies asked and acknowledged (api.go). It decides nothing about xDS itself: that is go-control-plane's, except in the
// raw kind, where a test writes every frame and go-control-plane has no say.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
)

// What is served when nobody says otherwise; interop/xds-server/bootstrap.yaml makes a proxy of it.
//
//go:embed example.yaml
var example string

func main() {
	xds := flag.String("xds", "127.0.0.1:18000", "address of the control plane (gRPC, plaintext)")
	socket := flag.String("socket", "", "path of a Unix socket at which the control plane is found too")
	api := flag.String("http", "127.0.0.1:18080", "address of the HTTP API, which is also the example's upstream")
	kind := flag.String("cache", "snapshot-ads", "snapshot-ads, snapshot, linear, mux (endpoints and routes linear, "+
		"the rest a snapshot), or raw (nothing is answered but what is posted to /send)")
	file := flag.String("resources", "example", "YAML file of resources to begin with; example or none")
	heartbeat := flag.Duration("heartbeat", 0, "how often a snapshot with TTLs sends heartbeats; 0 is never")
	prefix := flag.String("versions", strconv.FormatInt(time.Now().UnixMilli(), 36), "what versions begin with")
	flag.Parse()
	if err := run(*xds, *socket, *api, *kind, *file, *prefix, *heartbeat); err != nil {
		log.Fatalf("xds-server: %v", err)
	}
}

func run(xds, socket, api, kind, file, prefix string, heartbeat time.Duration) error {
	stop, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer done()
	plane, err := newPlane(stop, kind, prefix, heartbeat)
	if err != nil {
		return err
	}
	if text, err := initial(file); err != nil {
		return err
	} else if err := plane.load(text, nil); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	streams := newStreams(kind == "raw")
	grpcServer := newServer(server.NewServer(stop, plane.cache(), nil), streams)
	sockets, err := net.Listen("tcp", xds)
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	if socket != "" {
		if err := os.RemoveAll(socket); err != nil { // One that a crash left behind.
			return err
		}
		files, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		go func() { failed <- grpcServer.Serve(files) }()
	}
	pages, err := net.Listen("tcp", api)
	if err != nil {
		return err
	}
	connections := &connections{Listener: sockets}
	go func() { failed <- grpcServer.Serve(connections) }()
	go func() { failed <- http.Serve(pages, newAPI(plane, streams, connections)) }()
	fmt.Printf("xds %s, http %s, cache %s\n", sockets.Addr(), pages.Addr(), kind)
	if file == "example" {
		fmt.Println("start a proxy with -c interop/xds-server/bootstrap.yaml, then: curl http://127.0.0.1:10000/hello")
	}
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
		grpcServer.Stop()
		return nil
	}
}

func initial(file string) (string, error) {
	switch file {
	case "none":
		return "", nil
	case "example":
		return example, nil
	}
	text, err := os.ReadFile(file)
	return string(text), err
}
