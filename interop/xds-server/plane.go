package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Every proxy gets the same, so every node has the same hash.
type everyNode struct{}

func (everyNode) ID(*core.Node) string { return "every" }

// plane is what resources there are, and the caches that serve them.
type plane struct {
	mu       sync.Mutex
	prefix   string
	items    map[string]map[string]item // by type URL and name
	versions map[string]int             // by type URL; counts changes
	snapshot cache.SnapshotCache        // nil in the linear kind
	linear   map[string]*cache.LinearCache
	ended    context.Context
}

func newPlane(ended context.Context, kind, prefix string, heartbeat time.Duration) (*plane, error) {
	p := &plane{
		prefix: prefix, items: map[string]map[string]item{}, versions: map[string]int{},
		linear: map[string]*cache.LinearCache{}, ended: ended,
	}
	for _, url := range kinds {
		p.items[url] = map[string]item{}
	}
	var linear []string
	switch kind {
	case "snapshot-ads", "snapshot", "raw":
	case "mux":
		linear = []string{resource.EndpointType, resource.RouteType}
	case "linear":
		linear = slices.Collect(maps.Values(kinds))
	default:
		return nil, fmt.Errorf("there is no cache kind %q", kind)
	}
	for _, url := range linear {
		p.linear[url] = cache.NewLinearCache(url, cache.WithVersionPrefix(prefix+"."))
	}
	switch {
	case kind == "linear":
	case heartbeat > 0:
		p.snapshot = cache.NewSnapshotCacheWithHeartbeating(ended, kind == "snapshot-ads", everyNode{}, nil, heartbeat)
	default:
		p.snapshot = cache.NewSnapshotCache(kind == "snapshot-ads", everyNode{}, nil)
	}
	return p, nil
}

// cache is what go-control-plane's server asks.
func (p *plane) cache() cache.Cache {
	if len(p.linear) == 0 {
		return p.snapshot
	}
	mux := &cache.MuxCache{Caches: map[string]cache.Cache{}}
	for url, linear := range p.linear {
		mux.Caches[url] = linear
	}
	if p.snapshot != nil {
		mux.Caches["rest"] = p.snapshot
	}
	which := func(url string) string {
		if p.linear[url] == nil {
			return "rest"
		}
		return url
	}
	mux.Classify = func(r *cache.Request) string { return which(r.GetTypeUrl()) }
	mux.ClassifyDelta = func(r *cache.DeltaRequest) string { return which(r.GetTypeUrl()) }
	return mux
}

// load sets the resources of a text, in one push.
func (p *plane) load(text string, ttl *time.Duration) error {
	if text == "" {
		return p.change(nil, nil)
	}
	items, err := decode(text, ttl)
	if err != nil {
		return err
	}
	return p.change(items, nil)
}

// change sets and removes resources and pushes what changed: a snapshot whose changed types have a new version, and what
// each linear cache needs to know.
func (p *plane) change(set, remove []item) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	updates, removals := map[string]map[string]types.Resource{}, map[string][]string{}
	for _, it := range set {
		p.items[it.url][it.name] = it
		if updates[it.url] == nil {
			updates[it.url] = map[string]types.Resource{}
		}
		updates[it.url][it.name] = it.body
	}
	for _, it := range remove {
		if _, there := p.items[it.url][it.name]; !there {
			return fmt.Errorf("there is no %s %q", short(it.url), it.name)
		}
		delete(p.items[it.url], it.name)
		removals[it.url] = append(removals[it.url], it.name)
	}
	inSnapshot := p.snapshot != nil && len(set)+len(remove) == 0
	for _, url := range kinds {
		if len(updates[url])+len(removals[url]) == 0 {
			continue
		}
		if linear := p.linear[url]; linear == nil {
			p.versions[url]++
			inSnapshot = true
		} else if err := linear.UpdateResources(updates[url], removals[url]); err != nil {
			return err
		}
	}
	if !inSnapshot {
		return nil
	}
	return p.snapshot.SetSnapshot(p.ended, everyNode{}.ID(nil), p.picture())
}

func (p *plane) picture() *cache.Snapshot {
	picture := new(cache.Snapshot)
	for url, items := range p.items {
		if p.linear[url] != nil {
			continue
		}
		kind := cache.GetResponseType(url)
		list := make([]types.ResourceWithTTL, 0, len(items))
		for _, it := range items {
			list = append(list, types.ResourceWithTTL{Resource: it.body, TTL: it.ttl})
		}
		version := fmt.Sprintf("%s.%d", p.prefix, p.versions[url])
		picture.Resources[kind] = cache.NewResourcesWithTTL(version, list)
	}
	return picture
}

// find gives a resource that is there.
func (p *plane) find(url, name string) (item, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it, there := p.items[url][name]; there {
		return it, nil
	}
	return item{}, errors.New(short(url) + " " + name + " is not there")
}
