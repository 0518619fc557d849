package wire

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"gatehouse.dev/gatehouse/gateway/config"
)

// errRemoved ends the streams of a Gateway that is gone.
var errRemoved = errors.New("the Gateway is gone")

// fleet is one Gateway's resources and the streams of its proxies. There is one for each Gateway, and a stream belongs to one for as long
// as it lives: it has no way to another one's resources.
type fleet struct {
	gateway  string
	onChange func(gateway string)

	setting sync.Mutex // serialises set; guards catalog
	catalog *catalog

	mu        sync.Mutex
	set       bool                           // whether there is a configuration yet; guarded by mu, as all below
	version   uint64                         // of the configuration
	resources map[string]*discovery.Resource // by name; never changed once here
	streams   map[*stream]struct{}
	removed   bool

	users int // streams, and calls of Set under way; guarded by Server.mu
}

func newFleet(gateway string, onChange func(string)) *fleet {
	return &fleet{
		gateway: gateway, onChange: onChange, catalog: newCatalog(),
		resources: map[string]*discovery.Resource{}, streams: map[*stream]struct{}{},
	}
}

// replace makes cfg what the proxies are to run and begins to send them what it changes.
func (f *fleet) replace(version uint64, cfg *config.Config) error {
	f.setting.Lock()
	defer f.setting.Unlock()
	edit, err := f.catalog.edit(cfg)
	if err != nil {
		return err
	}
	edit.commit()
	if f.publish(version, edit) {
		f.onChange(f.gateway)
	}
	return nil
}

// publish reports whether what is known of some proxy changed by it: one that runs the same content already is at the new version at once.
func (f *fleet) publish(version uint64, e *edit) (known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version, f.set = version, true
	var changed []string
	for name := range e.drop {
		if e.put[name] == nil && f.resources[name] != nil {
			delete(f.resources, name)
			changed = append(changed, name)
		}
	}
	for name, resource := range e.put {
		if had := f.resources[name]; had == nil || had.Version != resource.Version {
			f.resources[name] = resource
			changed = append(changed, name)
		}
	}
	for s := range f.streams {
		known = s.change(changed) || known
	}
	return known
}

// join adds a stream, and ends the one that the same process had before: the proxy knows that it is dead, the controller not yet.
func (f *fleet) join(s *stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.removed {
		s.end(errRemoved)
	}
	if f.removed || s.over {
		return
	}
	for other := range f.streams {
		if other.name == s.name && other.instance == s.instance {
			other.end(errReplaced)
			delete(f.streams, other)
		}
	}
	f.streams[s] = struct{}{}
}

// leave removes a stream and reports whether it was one of the proxies.
func (f *fleet) leave(s *stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.over = true
	_, was := f.streams[s]
	delete(f.streams, s)
	return was
}

// proxies returns what is known of each proxy, sorted by name and then by how long it is connected.
func (f *fleet) proxies() []Proxy {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Proxy, 0, len(f.streams))
	for s := range f.streams {
		list = append(list, Proxy{
			Name: s.name, Since: s.since, Version: s.acknowledged, Refused: s.refused,
			Listeners: maps.Clone(s.applied.Listeners), Clusters: maps.Clone(s.applied.Clusters),
		})
	}
	slices.SortFunc(list, func(a, b Proxy) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.Since.Compare(b.Since)
	})
	return list
}

// unused reports whether there is nothing to keep: no configuration was ever set.
func (f *fleet) unused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.set
}

// remove ends the streams, and those that have yet to join.
func (f *fleet) remove() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = true
	for s := range f.streams {
		s.end(errRemoved)
	}
}
