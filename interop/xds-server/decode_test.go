package main

import (
	"context"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
)

func TestTheExampleIsConsistent(t *testing.T) {
	p, err := newPlane(context.Background(), "snapshot-ads", "v", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.load(example, nil); err != nil {
		t.Fatal(err)
	}
	// Otherwise the snapshot cache would hold endpoints and routes back for ever.
	if err := p.picture().Consistent(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsNoResourceIsRefused(t *testing.T) {
	for text, says := range map[string]string{
		`{}`: "not a list",
		`[{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "nmae": "a"}]`: "nmae",
		`[{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster"}]`:              `named ""`,
		`[{"@type": "type.googleapis.com/envoy.config.core.v3.Node", "id": "a"}]`:         "nothing that a cache takes",
	} {
		if _, err := decode(text, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOnlyChangedTypesGetAnotherVersion(t *testing.T) {
	p, err := newPlane(context.Background(), "snapshot", "v", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.load(example, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.change(nil, []item{{url: resource.RouteType, name: "web"}}); err != nil {
		t.Fatal(err)
	}
	picture := p.picture()
	if got := picture.GetVersion(resource.RouteType); got != "v.2" {
		t.Error(got)
	}
	if got := picture.GetVersion(resource.ClusterType); got != "v.1" {
		t.Error(got)
	}
	if err := p.change(nil, []item{{url: resource.RouteType, name: "web"}}); err == nil {
		t.Error("it was removed twice")
	}
}

func TestFramesAreWhatTheySay(t *testing.T) {
	body := `{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a"}`
	f := frame{Type: "Cluster", Version: "1", Nonce: "n", Resources: []framePart{
		{Name: "a", Version: "2", Body: []byte(body)},
		{Name: "b", URL: "Listener", Value: []byte{0xff}},
		{Name: "c", Version: "3", TTL: "1s"},
	}}
	sotw := new(discovery.DiscoveryResponse)
	if message, err := f.encode(false); err != nil || proto.Unmarshal(message.bytes, sotw) != nil {
		t.Fatal(err)
	}
	if got := sotw.GetResources()[1]; got.GetTypeUrl() != resource.ListenerType || len(got.GetValue()) != 1 {
		t.Error(got)
	}
	heartbeat := new(discovery.Resource)
	if err := sotw.GetResources()[2].UnmarshalTo(heartbeat); err != nil || heartbeat.GetResource() != nil {
		t.Error(err, heartbeat)
	}
	delta := new(discovery.DeltaDiscoveryResponse)
	if message, err := f.encode(true); err != nil || proto.Unmarshal(message.bytes, delta) != nil {
		t.Fatal(err)
	}
	first, err := delta.GetResources()[0].GetResource().UnmarshalNew()
	if err != nil || cache.GetResourceName(first) != "a" || delta.GetResources()[2].GetTtl().GetSeconds() != 1 {
		t.Error(err, delta)
	}
	if message, err := (&frame{Type: "Cluster", Bytes: []byte{0xff}}).encode(true); err != nil || len(message.bytes) != 1 {
		t.Error(err)
	}
}

func TestGeneratedResourcesAreConsistent(t *testing.T) {
	for _, kind := range []string{"snapshot-ads", "mux", "linear"} {
		p, err := newPlane(context.Background(), kind, "v", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := generate(p, []byte(`{"clusters": 3, "endpoints": 2, "hosts": 4, "routes": "r", "port": 1}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := push(p, []byte(`{"count": 4, "every": "0s", "clusters": 3}`)); err != nil {
			t.Fatal(err)
		}
		for url, count := range map[string]int{resource.ClusterType: 3, resource.EndpointType: 3, resource.RouteType: 1} {
			if got := len(p.items[url]); got != count {
				t.Errorf("%s: %d %s", kind, got, short(url))
			}
		}
	}
}
