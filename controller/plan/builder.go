package plan

import (
	"cmp"
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
}

// NewBuilder returns a Builder. previous is the Plan whose pointers are kept; it may be nil.
func NewBuilder(previous *Plan) *Builder {
	b := &Builder{
		previous:     &config.Config{},
		listeners:    make(map[string]*config.Listener),
		certificates: make(map[string]*config.Certificate),
	}
	if previous != nil && previous.Config != nil {
		b.previous = previous.Config
	}
	return b
}

// Listener adds a listener that serves. Its Routes come from Attach.
func (b *Builder) Listener(l config.Listener) {
	l.Routes = nil
	b.listeners[l.Name] = &l
}

// Attach adds a route to a listener. A listener that was not added does not serve and takes no routes; Attach then reports false.
func (b *Builder) Attach(listener string, r *config.Route) bool {
	l, ok := b.listeners[listener]
	if ok {
		l.Routes = append(l.Routes, r)
	}
	return ok
}

// Cluster adds a cluster. The caller adds each name once, and keeps the pointer of a cluster that did not change.
func (b *Builder) Cluster(c *config.Cluster) { b.clusters = append(b.clusters, c) }

// Certificate adds a certificate; the same name may be added again.
func (b *Builder) Certificate(c *config.Certificate) { b.certificates[c.Name] = c }

// Outcome adds outcomes.
func (b *Builder) Outcome(list ...Outcome) { b.outcomes = append(b.outcomes, list...) }

// Problem adds problems.
func (b *Builder) Problem(list ...problem.Problem) { b.problems = append(b.problems, list...) }

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
		c.Listeners[i] = keep(b.previous.Listeners, l, func(l *config.Listener) string { return l.Name }, sameListener)
	}
	for _, cert := range b.certificates {
		c.Certificates = append(c.Certificates, cert)
	}
	slices.SortFunc(c.Certificates, func(x, y *config.Certificate) int { return strings.Compare(x.Name, y.Name) })
	for i, cert := range c.Certificates {
		c.Certificates[i] = keep(b.previous.Certificates, cert, func(c *config.Certificate) string { return c.Name },
			func(x, y *config.Certificate) bool { return reflect.DeepEqual(x, y) })
	}
	slices.SortStableFunc(b.outcomes, compareOutcomes)
	problem.Sort(b.problems)
	return &Plan{Config: c, Outcomes: b.outcomes, Problems: b.problems}
}

// keep returns the item of the same name in a list sorted by name when it is the same, and x otherwise.
func keep[T any](sorted []*T, x *T, name func(*T) string, same func(a, b *T) bool) *T {
	i, ok := slices.BinarySearchFunc(sorted, name(x), func(e *T, target string) int { return strings.Compare(name(e), target) })
	if ok && same(sorted[i], x) {
		return sorted[i]
	}
	return x
}

// sameListener compares routes by identity: a route that changed is another pointer.
func sameListener(a, b *config.Listener) bool {
	if !slices.Equal(a.Routes, b.Routes) {
		return false
	}
	x, y := *a, *b
	x.Routes, y.Routes = nil, nil
	return reflect.DeepEqual(x, y)
}

func compareOutcomes(a, b Outcome) int {
	return cmp.Or(compareOrigins(&a.Object, &b.Object), cmp.Compare(a.ParentRef, b.ParentRef), compareOrigins(&a.Parent, &b.Parent))
}

func compareOrigins(a, b *config.Origin) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
		strings.Compare(a.Rule, b.Rule))
}
