package client

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

// store is the resources received and the configuration that they make. A change costs what it touches: a route that changed is put into
// the one page that names it, the page into its listener, and everything else keeps its pointer.
//
// What is received and what runs are two things. The controller counts as delivered what was received, also when it did not apply; so the
// store keeps it, and the next change is built upon it.
type store struct {
	// versions of what was received, by resource name; "" for what cannot be read, so that a new stream brings it again or removes it.
	versions map[string]string
	broken   map[string]error

	listeners    map[string]*config.Listener // without routes, by the listener's name
	clusters     map[string]*config.Cluster  // without endpoints, by the cluster's name
	endpoints    map[string]*format.Endpoints
	certificates map[string]*config.Certificate // by the certificate's name
	routes       map[string]any                 // *config.Route and *config.StreamRoute, by resource name
	pages        map[string]*page               // by resource name
	pagesOf      map[string][]string            // resource names of the pages that name a route

	built *config.Config // of the last build that succeeded

	// What has to be built anew.
	stalePages, staleListeners, staleClusters, staleCertificates map[string]bool
}

// page is a piece of a listener's routes, resolved.
type page struct {
	*format.Page
	routes  []*config.Route
	streams []*config.StreamRoute
}

func newStore() *store {
	return &store{
		versions: map[string]string{}, broken: map[string]error{},
		listeners: map[string]*config.Listener{}, clusters: map[string]*config.Cluster{}, endpoints: map[string]*format.Endpoints{},
		certificates: map[string]*config.Certificate{}, routes: map[string]any{}, pages: map[string]*page{}, pagesOf: map[string][]string{},
		built:      &config.Config{},
		stalePages: map[string]bool{}, staleListeners: map[string]bool{}, staleClusters: map[string]bool{}, staleCertificates: map[string]bool{},
	}
}

// merge takes one message. What it brings takes effect with the next build.
func (s *store) merge(r *discovery.DeltaDiscoveryResponse) {
	for _, name := range r.GetRemovedResources() {
		delete(s.versions, name)
		delete(s.broken, name)
		s.remove(name)
	}
	for _, resource := range r.GetResources() {
		name := resource.GetName()
		message, err := format.Decode(resource)
		if err != nil {
			s.versions[name] = ""
			s.broken[name] = err
			continue
		}
		delete(s.broken, name)
		s.versions[name] = resource.GetVersion()
		s.put(name, message)
	}
}

func (s *store) put(name string, message any) {
	switch m := message.(type) {
	case *config.Listener:
		s.listeners[m.Name] = m
		s.staleListeners[m.Name] = true
	case *config.Cluster:
		s.clusters[m.Name] = m
		s.staleClusters[m.Name] = true
	case *format.Endpoints:
		s.endpoints[m.Cluster] = m
		s.staleClusters[m.Cluster] = true
	case *config.Certificate:
		s.certificates[m.Name] = m
		s.staleCertificates[m.Name] = true
	case *format.Page:
		s.unlink(name)
		s.pages[name] = &page{Page: m}
		for _, route := range m.Routes {
			s.pagesOf[route] = append(s.pagesOf[route], name)
		}
		s.stalePages[name] = true
		s.staleListeners[m.Listener] = true
	default:
		s.routes[name] = m
		s.touch(name)
	}
}

func (s *store) remove(name string) {
	kind, rest, _ := strings.Cut(name, "/")
	switch kind {
	case "listener":
		delete(s.listeners, rest)
		s.staleListeners[rest] = true
	case "cluster":
		delete(s.clusters, rest)
		s.staleClusters[rest] = true
	case "endpoints":
		delete(s.endpoints, rest)
		s.staleClusters[rest] = true
	case "certificate":
		delete(s.certificates, rest)
		s.staleCertificates[rest] = true
	case "page":
		if p := s.pages[name]; p != nil {
			s.staleListeners[p.Listener] = true
		}
		s.unlink(name)
		delete(s.pages, name)
		delete(s.stalePages, name)
	default:
		delete(s.routes, name)
		s.touch(name)
	}
}

// touch marks the pages that name a route.
func (s *store) touch(route string) {
	for _, name := range s.pagesOf[route] {
		s.stalePages[name] = true
	}
}

// unlink takes a page's names out of pagesOf.
func (s *store) unlink(name string) {
	p := s.pages[name]
	if p == nil {
		return
	}
	for _, route := range p.Routes {
		left := slices.DeleteFunc(s.pagesOf[route], func(other string) bool { return other == name })
		if len(left) == 0 {
			delete(s.pagesOf, route)
		} else {
			s.pagesOf[route] = left
		}
	}
}

// maxNamed bounds how many broken resources an error names.
const maxNamed = 10

// build returns the configuration of everything received. An error names what is wrong; what was built before stays as it is, and what
// is stale stays so.
func (s *store) build() (*config.Config, error) {
	if err := s.problems(); err != nil {
		return nil, err
	}
	for name := range s.stalePages {
		if err := s.resolve(s.pages[name]); err != nil {
			return nil, err
		}
		s.staleListeners[s.pages[name].Listener] = true
		delete(s.stalePages, name)
	}
	listeners := make(map[string]*config.Listener, len(s.staleListeners))
	for name := range s.staleListeners {
		l, err := s.listener(name)
		if err != nil {
			return nil, err
		}
		listeners[name] = l
	}
	clusters := make(map[string]*config.Cluster, len(s.staleClusters))
	for name := range s.staleClusters {
		clusters[name] = s.cluster(name)
	}
	certificates := make(map[string]*config.Certificate, len(s.staleCertificates))
	for name := range s.staleCertificates {
		certificates[name] = s.certificates[name]
	}
	if len(listeners)+len(clusters)+len(certificates) > 0 {
		s.built = &config.Config{
			Listeners:    replace(s.built.Listeners, listeners, func(l *config.Listener) string { return l.Name }),
			Clusters:     replace(s.built.Clusters, clusters, func(c *config.Cluster) string { return c.Name }),
			Certificates: replace(s.built.Certificates, certificates, func(c *config.Certificate) string { return c.Name }),
		}
	}
	clear(s.staleListeners)
	clear(s.staleClusters)
	clear(s.staleCertificates)
	return s.built, nil
}

// problems reports what could not be read.
func (s *store) problems() error {
	if len(s.broken) == 0 {
		return nil
	}
	names := make([]string, 0, len(s.broken))
	for name := range s.broken {
		names = append(names, name)
	}
	sort.Strings(names)
	var list []error
	for _, name := range names[:min(len(names), maxNamed)] {
		list = append(list, s.broken[name])
	}
	if more := len(names) - maxNamed; more > 0 {
		list = append(list, fmt.Errorf("and %d more", more))
	}
	return fmt.Errorf("a resource cannot be read: %w", errors.Join(list...))
}

// resolve puts routes in place of their names.
func (s *store) resolve(p *page) error {
	p.routes, p.streams = p.routes[:0:0], p.streams[:0:0]
	for _, name := range p.Routes {
		switch route := s.routes[name].(type) {
		case *config.Route:
			p.routes = append(p.routes, route)
		case *config.StreamRoute:
			p.streams = append(p.streams, route)
		default:
			return fmt.Errorf("listener %s: %s is missing", p.Listener, name)
		}
	}
	return nil
}

// listener puts a listener together from its pages; nil when there is no such listener any more.
func (s *store) listener(name string) (*config.Listener, error) {
	bare := s.listeners[name]
	if bare == nil {
		return nil, nil
	}
	var chain []*page
	routes, streams := 0, 0
	for first := ""; ; {
		p := s.pages[format.PageName(name, first)]
		if p == nil && first == "" {
			break // no routes
		}
		if p == nil {
			return nil, fmt.Errorf("listener %s: the page of its routes from %s on is missing", name, first)
		}
		chain = append(chain, p)
		routes, streams = routes+len(p.routes), streams+len(p.streams)
		if first = p.Next; first == "" {
			break
		}
		if len(chain) > len(s.pages) {
			return nil, fmt.Errorf("listener %s: the pages of its routes make a circle", name)
		}
	}
	l := *bare
	if routes > 0 {
		l.Routes = make([]*config.Route, 0, routes)
	}
	if streams > 0 {
		l.Streams = make([]*config.StreamRoute, 0, streams)
	}
	for _, p := range chain {
		l.Routes = append(l.Routes, p.routes...)
		l.Streams = append(l.Streams, p.streams...)
	}
	return &l, nil
}

// cluster puts a cluster together with its endpoints; nil when there is no such cluster any more.
func (s *store) cluster(name string) *config.Cluster {
	bare := s.clusters[name]
	if bare == nil {
		return nil
	}
	c := *bare
	if e := s.endpoints[name]; e != nil {
		c.Endpoints = e.Addresses
	}
	return &c
}

// replace returns a list sorted by name with the items of changed in place of those of their names; nil takes one out. A list in which
// nothing changed is the same list.
func replace[T any](sorted []*T, changed map[string]*T, name func(*T) string) []*T {
	if len(changed) == 0 {
		return sorted
	}
	names := make([]string, 0, len(changed))
	for n := range changed {
		names = append(names, n)
	}
	sort.Strings(names)
	out := make([]*T, 0, len(sorted)+len(changed))
	for _, n := range names {
		i, found := slices.BinarySearchFunc(sorted, n, func(item *T, n string) int { return strings.Compare(name(item), n) })
		out = append(out, sorted[:i]...)
		if found {
			i++
		}
		sorted = sorted[i:]
		if item := changed[n]; item != nil {
			out = append(out, item)
		}
	}
	return append(out, sorted...)
}
