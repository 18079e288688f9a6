package main

import (
	"encoding/json"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// size is how much to make: clusters c-0.. of so many endpoints each, found by EDS over ADS, and one route configuration
// with a virtual host h-N.example for each cluster, after a host "*" that goes to c-0.
type size struct {
	Clusters  int    `json:"clusters"`
	Endpoints int    `json:"endpoints"`
	Hosts     int    `json:"hosts"`
	Routes    string `json:"routes"` // name of the route configuration
	Port      uint32 `json:"port"`   // where all endpoints of c-0 listen; other clusters' are nowhere
}

// nowhere is a port of loopback that refuses connections.
const nowhere = 9

func generate(p *plane, body []byte) (any, error) {
	var n size
	if err := json.Unmarshal(body, &n); err != nil {
		return nil, err
	}
	items := make([]item, 0, 2*n.Clusters+1)
	for i := range n.Clusters {
		name := fmt.Sprintf("c-%d", i)
		items = append(items,
			item{url: resource.ClusterType, name: name, body: cluster(name)},
			item{url: resource.EndpointType, name: name, body: assignment(name, i, n)})
	}
	if n.Routes != "" {
		routes := &routev3.RouteConfiguration{Name: n.Routes}
		routes.VirtualHosts = append(routes.VirtualHosts, host("all", "*", "c-0"))
		for i := range n.Hosts {
			name := fmt.Sprintf("h-%d", i)
			routes.VirtualHosts = append(routes.VirtualHosts, host(name, name+".example", fmt.Sprintf("c-%d", i%n.Clusters)))
		}
		items = append(items, item{url: resource.RouteType, name: n.Routes, body: routes})
	}
	var bytes int
	for _, it := range items {
		bytes += proto.Size(it.body)
	}
	return map[string]int{"resources": len(items), "bytes": bytes}, p.change(items, nil)
}

func cluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}},
	}
}

func assignment(name string, i int, n size) *endpointv3.ClusterLoadAssignment {
	hosts := make([]*endpointv3.LbEndpoint, 0, n.Endpoints)
	for e := range n.Endpoints {
		if i == 0 {
			// One address, in one place: a real upstream has one port here.
			hosts = append(hosts, lbEndpoint("127.0.0.1", n.Port))
			break
		}
		hosts = append(hosts, lbEndpoint(fmt.Sprintf("127.%d.%d.%d", 1+e, i>>8, i&255), nowhere))
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: hosts}},
	}
}

func lbEndpoint(address string, port uint32) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
	}}}
}

func host(name, domain, cluster string) *routev3.VirtualHost {
	return &routev3.VirtualHost{Name: name, Domains: []string{domain}, Routes: []*routev3.Route{{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		}},
	}}}
}

// pushes is how many changes of one endpoint to make and how far apart; each is of the next cluster of the generated ones.
type pushes struct {
	Count    int    `json:"count"`
	Every    string `json:"every"`
	Clusters int    `json:"clusters"` // how many there are
}

// push answers when the last change has been handed to the caches. Each change gives the last endpoint of a cluster
// another port, which nothing listens on.
func push(p *plane, body []byte) (any, error) {
	var n pushes
	if err := json.Unmarshal(body, &n); err != nil {
		return nil, err
	}
	every, err := time.ParseDuration(n.Every)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	for i := range n.Count {
		// c-0 carries the load.
		it, err := p.find(resource.EndpointType, fmt.Sprintf("c-%d", 1+i%(n.Clusters-1)))
		if err != nil {
			return nil, err
		}
		changed := proto.Clone(it.body).(*endpointv3.ClusterLoadAssignment)
		hosts := changed.GetEndpoints()[0].GetLbEndpoints()
		address := hosts[len(hosts)-1].GetEndpoint().GetAddress().GetSocketAddress()
		port := address.GetPortValue() + 1
		if port > 1000 {
			port = nowhere
		}
		address.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: port}
		it.body = changed
		if err := p.change([]item{it}, nil); err != nil {
			return nil, err
		}
		time.Sleep(time.Until(begin.Add(time.Duration(i+1) * every)))
	}
	return map[string]any{"pushes": n.Count, "ms": time.Since(begin).Milliseconds()}, nil
}
