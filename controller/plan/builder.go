package plan

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Builder assembles a Plan: it sorts everything and keeps the pointers of the Plan before it for listeners and certificates that did
// not change. It is for one goroutine and one Plan.
type Builder struct {
	previous     *config.Config
	listeners    map[string]*config.Listener
	clusters     []*config.Cluster
	certificates map[string]*config.Certificate
	outcomes     []Outcome
	problems     []problem.Problem
	gateways     []Gateway
	wants        map[config.Origin]bool
}

// NewBuilder returns a Builder. previous is the Plan whose pointers are kept; it may be nil.
func NewBuilder(previous *Plan) *Builder {
	b := &Builder{
		previous:     &config.Config{},
		listeners:    make(map[string]*config.Listener),
		certificates: make(map[string]*config.Certificate),
		wants:        make(map[config.Origin]bool),
	}
	if previous != nil && previous.Config != nil {
		b.previous = previous.Config
		b.outcomes = make([]Outcome, 0, len(previous.Outcomes)+16)
		b.clusters = make([]*config.Cluster, 0, len(previous.Config.Clusters)+16)
	}
	return b
}

// Listener adds a listener that serves and returns it, so that the caller can append to its Routes and Streams. Streams
// stay in the order in which they are appended, which is that of precedence.
func (b *Builder) Listener(l config.Listener) *config.Listener {
	l.Routes, l.Streams = nil, nil
	if old := find(b.previous.Listeners, l.Name, listenerName); old != nil {
		l.Routes = make([]*config.Route, 0, len(old.Routes)+1)
	}
	b.listeners[l.Name] = &l
	return &l
}

// Cluster adds a cluster. The caller adds each name once, and keeps the pointer of a cluster that did not change.
func (b *Builder) Cluster(c *config.Cluster) { b.clusters = append(b.clusters, c) }

// Certificate adds a certificate; the same name may be added again.
func (b *Builder) Certificate(c *config.Certificate) { b.certificates[c.Name] = c }

// Outcome adds outcomes.
func (b *Builder) Outcome(list ...Outcome) { b.outcomes = append(b.outcomes, list...) }

// Problem adds problems.
func (b *Builder) Problem(list ...problem.Problem) { b.problems = append(b.problems, list...) }

// Gateway adds an accepted Gateway.
func (b *Builder) Gateway(g Gateway) { b.gateways = append(b.gateways, g) }

// Want adds a Secret or ConfigMap that a permitted reference leads to, whether it exists or not. It may be added again.
func (b *Builder) Want(kind, namespace, name string) {
	b.wants[config.Origin{Kind: kind, Namespace: namespace, Name: name}] = true
}

// Plan returns the finished plan.
func (b *Builder) Plan() *Plan {
	c := &config.Config{Clusters: b.clusters}
	slices.SortFunc(c.Clusters, func(x, y *config.Cluster) int { return strings.Compare(x.Name, y.Name) })
	for _, l := range b.listeners {
		slices.SortFunc(l.Routes, RoutePrecedence)
		c.Listeners = append(c.Listeners, l)
	}
	slices.SortFunc(c.Listeners, func(x, y *config.Listener) int { return strings.Compare(x.Name, y.Name) })
	for i, l := range c.Listeners {
		if old := find(b.previous.Listeners, l.Name, listenerName); old != nil && sameListener(old, l) {
			c.Listeners[i] = old
		}
	}
	for _, cert := range b.certificates {
		c.Certificates = append(c.Certificates, cert)
	}
	slices.SortFunc(c.Certificates, func(x, y *config.Certificate) int { return strings.Compare(x.Name, y.Name) })
	for i, cert := range c.Certificates {
		old := find(b.previous.Certificates, cert.Name, func(c *config.Certificate) string { return c.Name })
		if old != nil && reflect.DeepEqual(old, cert) {
			c.Certificates[i] = old
		}
	}
	slices.SortFunc(b.outcomes, func(x, y Outcome) int { return compareOutcomes(&x, &y) })
	problem.Sort(b.problems)
	slices.SortFunc(b.gateways, func(x, y Gateway) int { return compareOrigins(&x.Origin, &y.Origin) })
	wants := slices.SortedFunc(maps.Keys(b.wants), func(x, y config.Origin) int { return compareOrigins(&x, &y) })
	return &Plan{Config: c, Outcomes: b.outcomes, Problems: b.problems, Gateways: b.gateways, Wants: wants}
}

// find returns the item of that name in a list sorted by name, or nil.
func find[T any](sorted []*T, target string, name func(*T) string) *T {
	i, ok := slices.BinarySearchFunc(sorted, target, func(e *T, target string) int { return strings.Compare(name(e), target) })
	if !ok {
		return nil
	}
	return sorted[i]
}

func listenerName(l *config.Listener) string { return l.Name }

// sameListener compares routes by identity: a route that changed is another pointer.
func sameListener(a, b *config.Listener) bool {
	if !slices.Equal(a.Routes, b.Routes) || !slices.Equal(a.Streams, b.Streams) {
		return false
	}
	x, y := *a, *b
	x.Routes, y.Routes, x.Streams, y.Streams = nil, nil, nil, nil
	return reflect.DeepEqual(x, y)
}

func compareOutcomes(a, b *Outcome) int {
	return cmp.Or(compareOrigins(&a.Object, &b.Object), cmp.Compare(a.ParentRef, b.ParentRef), compareOrigins(&a.Parent, &b.Parent))
}

func compareOrigins(a, b *config.Origin) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
		strings.Compare(a.Rule, b.Rule))
}
