package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Cluster is a live destination.
type Cluster struct {
	name   string
	key    string
	config *config.Cluster // guarded by Manager.mu
	leases int             // guarded by Manager.mu
	broken error           // why the cluster cannot be used; set once
	// identity is what it presents as a client, nil for nothing; set once
	identity *identity
	balance  config.LoadBalancing
	dialer   *dialer

	session atomic.Pointer[Session] // nil without session persistence
	budget  atomic.Pointer[budget]  // nil without a retry budget

	set      atomic.Pointer[endpointSet]
	turn     atomic.Uint64 // the next endpoint of round robin
	resolved chan struct{} // closed when the first name resolution ended; closed from the start without DNS
	stop     context.CancelFunc
	done     sync.WaitGroup // the name resolution goroutine

	mu     sync.Mutex  // serialises swaps of set
	closed bool        // no endpoint is added any more; guarded by mu
	gone   []*Endpoint // those that left while they were in use; guarded by mu
}

// endpointSet is immutable.
type endpointSet struct {
	list []*Endpoint
}

// Endpoint is one address of a cluster with its connections.
type Endpoint struct {
	addr   netip.AddrPort
	text   string // addr as text, for URLs and the log
	active atomic.Int64
	client *client
	// retired says that the endpoint left its cluster; whoever Done leaves it idle closes its connections.
	retired atomic.Bool
}

// Addr returns the endpoint's address.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// String returns ADDRESS:PORT.
func (e *Endpoint) String() string { return e.text }

func newCluster(c *config.Cluster, key string, o *Options, u *upkeep, id *identity) (*Cluster, error) {
	live := &Cluster{name: c.Name, key: key, config: c, identity: id, balance: c.LoadBalancing, resolved: make(chan struct{}), stop: func() {}}
	live.set.Store(&endpointSet{})
	if err := live.setRules(nil, c); err != nil {
		live.broken = err
		close(live.resolved)
		return live, err
	}
	d, err := newDialer(c, o, u, id)
	if err != nil {
		live.broken = err
		close(live.resolved)
		return live, err
	}
	live.dialer = d
	if c.DNS == nil {
		live.setEndpoints(c.Endpoints)
		close(live.resolved)
		return live, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	live.stop = cancel
	live.done.Go(func() { live.keepResolved(ctx, c.DNS, o) })
	return live, nil
}

// setRules makes what a configuration says beside endpoints and the way to connect: it changes nothing about connections. before is nil for
// a new cluster.
func (c *Cluster) setRules(before, want *config.Cluster) error {
	if before == nil || !sameSession(before.Persistence, want.Persistence) {
		var session *Session
		if want.Persistence != nil {
			var err error
			if session, err = NewSession(want.Persistence); err != nil {
				return fmt.Errorf("cluster %s: %w", want.Name, err)
			}
		}
		c.session.Store(session)
	}
	switch {
	case want.RetryBudget == nil:
		c.budget.Store(nil)
	case before == nil || before.RetryBudget == nil || *before.RetryBudget != *want.RetryBudget:
		c.budget.Store(newBudget(want.RetryBudget))
	}
	return nil
}

// Session returns the cluster's session persistence, nil when it has none.
func (c *Cluster) Session() *Session { return c.session.Load() }

// CountRequest counts a request, not its retries, for the retry budget.
func (c *Cluster) CountRequest() {
	if b := c.budget.Load(); b != nil {
		b.request(time.Now())
	}
}

// MayRetry takes a retry off the cluster's budget. It is false when none is left; without a budget it is true.
func (c *Cluster) MayRetry() bool {
	b := c.budget.Load()
	return b == nil || b.retry(time.Now())
}

// Name returns the cluster's name in the configuration.
func (c *Cluster) Name() string { return c.name }

// Endpoints returns the current addresses.
func (c *Cluster) Endpoints() []netip.AddrPort {
	set := c.set.Load()
	out := make([]netip.AddrPort, 0, len(set.list))
	for _, e := range set.list {
		out = append(out, e.addr)
	}
	return out
}

func (c *Cluster) setStatic(endpoints []netip.AddrPort) {
	if c.broken == nil && c.config.DNS == nil {
		c.setEndpoints(endpoints)
	}
}

// setEndpoints swaps the endpoints. One that stays keeps its connections and its count of requests in flight; one that goes
// finishes what it has and keeps no idle connection.
func (c *Cluster) setEndpoints(addrs []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.swap(addrs)
}

// swap is called with mu held.
func (c *Cluster) swap(addrs []netip.AddrPort) {
	old := c.set.Load().list
	kept := make(map[netip.AddrPort]*Endpoint, len(old))
	for _, e := range old {
		kept[e.addr] = e
	}
	next := make([]*Endpoint, 0, len(addrs))
	for _, addr := range addrs {
		e, ok := kept[addr]
		if !ok {
			e = &Endpoint{addr: addr, text: addr.String(), client: c.dialer.client(addr)}
		}
		delete(kept, addr)
		next = append(next, e)
	}
	c.set.Store(&endpointSet{list: next})
	for _, gone := range kept {
		gone.retired.Store(true)
		gone.client.retire()
		c.gone = append(c.gone, gone)
	}
}

// tick ends what is overdue, at endpoints that left too as long as they are in use.
func (c *Cluster) tick(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = slices.DeleteFunc(c.gone, func(e *Endpoint) bool { return e.active.Load() == 0 })
	for _, e := range c.gone {
		e.client.tick(now)
	}
	for _, e := range c.set.Load().list {
		e.client.tick(now)
	}
}

func (c *Cluster) close() {
	c.stop()
	c.done.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.swap(nil)
}

// Pick chooses an endpoint, not one of tried while there is another. It waits for the first resolution of a name that is still under
// way. The caller must call Done on the endpoint when its attempt is over.
func (c *Cluster) Pick(ctx context.Context, tried []*Endpoint) (*Endpoint, *exchange.Fault) {
	return c.PickSticky(ctx, tried, netip.AddrPort{})
}

// PickSticky is Pick, but for the endpoint of this address as long as it is there and not one of tried.
func (c *Cluster) PickSticky(ctx context.Context, tried []*Endpoint, preferred netip.AddrPort) (*Endpoint, *exchange.Fault) {
	if c.broken != nil {
		return nil, exchange.NewFault(exchange.InvalidBackend, c.broken)
	}
	select {
	case <-c.resolved:
	default:
		select {
		case <-c.resolved:
		case <-ctx.Done():
			return nil, exchange.NewFault(exchange.NoEndpoints, context.Cause(ctx))
		}
	}
	list := c.set.Load().list
	if len(list) == 0 {
		return nil, exchange.NewFault(exchange.NoEndpoints, nil)
	}
	e := preferredOf(list, tried, preferred)
	if e == nil {
		e = c.choose(list, tried)
	}
	e.active.Add(1)
	return e, nil
}

// preferredOf returns the endpoint of an address; nil when it is not there, was tried or none is preferred.
func preferredOf(list, tried []*Endpoint, preferred netip.AddrPort) *Endpoint {
	if !preferred.IsValid() {
		return nil
	}
	for _, e := range list {
		if e.addr == preferred && !slices.Contains(tried, e) {
			return e
		}
	}
	return nil
}

// Done ends an attempt that Pick began.
func (e *Endpoint) Done() {
	if e.active.Add(-1) == 0 && e.retired.Load() {
		e.client.retire()
	}
}

func (c *Cluster) choose(list []*Endpoint, tried []*Endpoint) *Endpoint {
	if len(tried) > 0 && len(tried) < len(list) {
		list = slices.DeleteFunc(slices.Clone(list), func(e *Endpoint) bool { return slices.Contains(tried, e) })
	}
	n := len(list)
	if n == 1 {
		return list[0]
	}
	if c.balance == config.RoundRobin {
		return list[(c.turn.Add(1)-1)%uint64(n)]
	}
	// Two choices: nearly as even as asking every endpoint, at the cost of two (Mitzenmacher 2001).
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	if list[j].active.Load() < list[i].active.Load() {
		return list[j]
	}
	return list[i]
}
