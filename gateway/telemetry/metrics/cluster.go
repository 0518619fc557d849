package metrics

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Cluster counts what goes to one cluster. Its methods are safe for concurrent use and do not allocate.
type Cluster struct {
	name        string
	connections atomic.Int64
	opened      atomic.Uint64
	// What is active is what was attempted and has not ended: an attempt adds to each once.
	attempts, ended atomic.Uint64
}

func (c *Cluster) connected(delta int) {
	c.connections.Add(int64(delta))
	if delta > 0 {
		c.opened.Add(uint64(delta))
	}
}

// Begin counts an attempt as active until End.
func (c *Cluster) Begin() { c.attempts.Add(1) }

// End ends what Begin began.
func (c *Cluster) End() { c.ended.Add(1) }

func (c *Cluster) active() int64 {
	ended := c.ended.Load() // first: nothing ends before it begins
	return int64(c.attempts.Load() - ended)
}

func (c *Cluster) idle() bool { return c.connections.Load() == 0 && c.active() == 0 }

type clusters struct {
	limit int
	// none stands for "no cluster" and shows no series; other for those beyond the limit.
	none, other *Cluster

	mu     sync.RWMutex
	byName map[string]*Cluster // guarded by mu; without none and other

	connections, opened, active, attempts *prometheus.Desc
}

func newClusters(limit int) *clusters {
	return &clusters{
		limit:       limit,
		none:        &Cluster{name: None},
		other:       &Cluster{name: Other},
		byName:      map[string]*Cluster{},
		connections: describe("upstream_connections", "Open connections to endpoints.", "cluster"),
		opened:      describe("upstream_connections_total", "Connections opened to endpoints.", "cluster"),
		active:      describe("upstream_requests_active", "Attempts at endpoints that have not ended.", "cluster"),
		attempts:    describe("upstream_attempts_total", "Attempts made at endpoints, retries and mirrors included.", "cluster"),
	}
}

// Cluster returns the counters of a cluster, the same ones for the same name until it is swept. Beyond the limit of distinct
// clusters it returns a shared one labelled "other".
func (s *Set) Cluster(name string) *Cluster { return s.clusters.get(clean(name)) }

// UpstreamConnections adds to a cluster's open connections: +1 for one opened, -1 for one closed.
func (s *Set) UpstreamConnections(cluster string, delta int) {
	cs, name := s.clusters, clean(cluster)
	cs.mu.RLock()
	c := cs.byName[name]
	if c != nil {
		// Under the lock, so that a sweep does not take the cluster for idle in between.
		c.connected(delta)
	}
	cs.mu.RUnlock()
	if c != nil {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.getLocked(name).connected(delta)
}

func (cs *clusters) get(name string) *Cluster {
	if name == None {
		return cs.none
	}
	cs.mu.RLock()
	c := cs.byName[name]
	cs.mu.RUnlock()
	if c != nil {
		return c
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.getLocked(name)
}

func (cs *clusters) getLocked(name string) *Cluster {
	if c := cs.byName[name]; c != nil {
		return c
	}
	if len(cs.byName) >= cs.limit {
		return cs.other
	}
	name = strings.Clone(name)
	c := &Cluster{name: name}
	cs.byName[name] = c
	return c
}

// sweep forgets the clusters that are not in use. One that still has connections or attempts stays until a later sweep, so that
// what was opened under its name is also closed under it.
func (cs *clusters) sweep(inUse map[string]bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	maps.DeleteFunc(cs.byName, func(name string, c *Cluster) bool { return !inUse[name] && c.idle() })
}

// Describe implements prometheus.Collector.
func (cs *clusters) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cs.connections, cs.opened, cs.active, cs.attempts} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A cluster shows once it was connected to or tried.
func (cs *clusters) Collect(ch chan<- prometheus.Metric) {
	cs.mu.RLock()
	list := slices.Collect(maps.Values(cs.byName))
	cs.mu.RUnlock()
	for _, c := range append(list, cs.other) {
		opened, attempts := c.opened.Load(), c.attempts.Load()
		if opened == 0 && attempts == 0 {
			continue
		}
		ch <- gauge(cs.connections, float64(c.connections.Load()), c.name)
		ch <- counter(cs.opened, opened, c.name)
		ch <- gauge(cs.active, float64(c.active()), c.name)
		ch <- counter(cs.attempts, attempts, c.name)
	}
}
