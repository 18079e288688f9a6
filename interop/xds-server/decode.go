package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// The types that this server keeps, each under its short name: the last word of its type URL.
var kinds = map[string]string{}

func init() {
	for _, url := range []string{
		resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType, resource.ScopedRouteType,
		resource.VirtualHostType, resource.SecretType, resource.RuntimeType, resource.ExtensionConfigType,
	} {
		kinds[short(url)] = url
	}
}

// short is the last word of a type URL: Cluster, ClusterLoadAssignment, Listener, RouteConfiguration.
func short(url string) string { return url[strings.LastIndexAny(url, "./")+1:] }

// long is the type URL of a short name; anything else, wrong type URLs included, stays as it is.
func long(name string) string {
	if url, known := kinds[name]; known {
		return url
	}
	return name
}

// item is one resource with what the protocol adds to it.
type item struct {
	url  string
	name string
	body types.Resource
	ttl  *time.Duration
}

// decode reads a YAML or JSON list of resources, each with its "@type".
func decode(text string, ttl *time.Duration) ([]item, error) {
	plain, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(plain, &parts); err != nil {
		return nil, fmt.Errorf("not a list of resources: %w", err)
	}
	items := make([]item, 0, len(parts))
	for at, part := range parts {
		boxed, err := decodeAny(part)
		if err != nil {
			return nil, fmt.Errorf("resource %d: %w", at, err)
		}
		body, err := boxed.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("resource %d: %w", at, err)
		}
		name := cache.GetResourceName(body)
		if _, known := kinds[short(boxed.GetTypeUrl())]; !known || name == "" {
			return nil, fmt.Errorf("resource %d: a %s named %q is nothing that a cache takes", at, boxed.GetTypeUrl(), name)
		}
		items = append(items, item{url: boxed.GetTypeUrl(), name: name, body: body, ttl: ttl})
	}
	return items, nil
}

// decodeAny reads one message with its "@type", in protobuf's JSON form; unknown fields are errors.
func decodeAny(text []byte) (*anypb.Any, error) {
	boxed := new(anypb.Any)
	return boxed, protojson.Unmarshal(text, boxed)
}
