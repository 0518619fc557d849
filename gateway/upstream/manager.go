// Package upstream is the way to the endpoints: clusters with their endpoints and load balancing, name resolution, connection pools
// and the clients that carry an exchange over them.
//
// A Manager turns the clusters of a configuration into live Clusters. A Cluster whose way of connecting (protocol, TLS) did not
// change lives on from one configuration to the next with its pools; only its endpoints are swapped. The package knows nothing of
// routes or listeners.
package upstream

import (
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// Options are the Manager's settings.
type Options struct {
	// Logger gets name resolution failures; nil discards them.
	Logger *slog.Logger
	// Resolve looks up names; nil is the system's resolver.
	Resolve Resolver
	// OnConnections, when set, is told of each connection opened (+1) and closed (-1) to a cluster.
	OnConnections func(cluster string, delta int)
}

// Manager owns the live clusters. Its methods are safe for concurrent use.
type Manager struct {
	options Options
	upkeep  *upkeep

	mu       sync.Mutex
	clusters map[string]*Cluster   // the current ones by name; guarded by mu
	leased   map[*Cluster]struct{} // those and their predecessors, for as long as somebody leases them; guarded by mu
	// identities are the certificates that the current clusters present, by name; guarded by mu
	identities map[string]*identity
}

// NewManager returns a Manager without clusters. Close ends it.
func NewManager(o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Resolve == nil {
		o.Resolve = systemResolver()
	}
	m := &Manager{options: o, clusters: map[string]*Cluster{}, leased: map[*Cluster]struct{}{}}
	m.upkeep = &upkeep{logger: o.Logger, tick: m.tick, began: time.Now()}
	return m
}

// Close ends what runs beside the exchanges: the watch for endpoints that hang up and the time limits of idle connections. It comes
// after the last Release. It may be called again.
func (m *Manager) Close() error { return m.upkeep.close() }

// tick ends what is overdue in every cluster.
func (m *Manager) tick(now time.Time) {
	m.mu.Lock()
	clusters := make([]*Cluster, 0, len(m.leased))
	for c := range m.leased {
		clusters = append(clusters, c)
	}
	m.mu.Unlock()
	for _, c := range clusters {
		c.tick(now)
	}
}

// Lease is the live clusters of one configuration. They stay usable until Release, whatever the Manager does meanwhile.
type Lease struct {
	manager  *Manager
	clusters map[string]*Cluster
}

// Cluster returns a live cluster by name, nil when the configuration has none of that name.
func (l *Lease) Cluster(name string) *Cluster { return l.clusters[name] }

// Release gives the clusters up; those that nobody else holds close their connections. It is called once.
func (l *Lease) Release() {
	for _, c := range l.manager.drop(l.clusters) {
		c.close() // waits for a lookup to notice; the Manager stays free meanwhile
	}
}

// Apply makes the clusters of a configuration live and leases them. Endpoints take effect at once, also for exchanges that hold an
// earlier lease, and so does a renewed client certificate, for new connections; certificates are those of the configuration, of which the
// clusters name some. A cluster that cannot be set up (bad CA bundle) is in the second result and answers every attempt with that error.
func (m *Manager) Apply(clusters []*config.Cluster, certificates ...*config.Certificate) (*Lease, map[string]error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	identities, broken := m.certify(clusters, certificates)
	lease := &Lease{manager: m, clusters: make(map[string]*Cluster, len(clusters))}
	problems := map[string]error{}
	for _, want := range clusters {
		c := m.clusters[want.Name]
		var id *identity
		if want.TLS != nil {
			id = identities[want.TLS.ClientCertificate]
			if err := broken[want.TLS.ClientCertificate]; err != nil {
				problems[want.Name] = err
			}
		}
		if c == nil || c.config != want || c.identity != id {
			key := connectionKey(want)
			if c == nil || c.key != key || c.identity != id {
				c, _ = newCluster(want, key, &m.options, m.upkeep, id) // the error is c.broken
				m.replace(c)
			} else {
				if err := c.setRules(c.config, want); err != nil {
					problems[want.Name] = err
				}
				c.config = want
				c.setStatic(want.Endpoints)
			}
		}
		if c.broken != nil && problems[want.Name] == nil {
			problems[want.Name] = c.broken
		}
		c.leases++
		m.leased[c] = struct{}{}
		lease.clusters[want.Name] = c
	}
	return lease, problems
}

// replace makes c the current cluster of its name. The Manager itself holds no lease: the previous one lives as long as its leases.
func (m *Manager) replace(c *Cluster) { m.clusters[c.name] = c }

// drop takes one lease off each cluster, forgets those that have none left and returns them to be closed.
func (m *Manager) drop(clusters map[string]*Cluster) (gone []*Cluster) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range clusters {
		c.leases--
		if c.leases > 0 {
			continue
		}
		gone = append(gone, c)
		delete(m.leased, c)
		if m.clusters[c.name] == c {
			delete(m.clusters, c.name)
		}
	}
	return gone
}

// connectionKey is everything about a cluster but its static endpoints: two clusters with one key can share connections.
func connectionKey(c *config.Cluster) string {
	same := *c
	same.Endpoints, same.Persistence, same.RetryBudget = nil, nil, nil
	same.Origin = config.Origin{}
	key, err := json.Marshal(same)
	if err != nil {
		panic("upstream: a cluster does not marshal: " + err.Error())
	}
	return string(key)
}
