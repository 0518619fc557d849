package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
)

// Wire is the way to the proxies: a *wire.Server.
type Wire interface {
	Set(gateway string, version uint64, c *config.Config) error
	Remove(gateway string)
	Proxies(gateway string) []wire.Proxy
}

// Fleet hands each Gateway's proxies their part of a plan, and knows what they made of it. Its methods are safe for concurrent use.
type Fleet struct {
	wire Wire
	now  func() time.Time

	mu      sync.Mutex
	version uint64 // of the last plan; guarded by mu, as all below
	running *config.Config
	parts   map[string]*config.Config
	sent    map[string]sent
}

// sent is what a Gateway's proxies are to run.
type sent struct {
	version uint64
	at      time.Time
	// err says why it could not be sent; the proxies go on with what they have.
	err error
	// short is since when fewer proxies run it than are ready; zero when that is not so.
	short time.Time
}

// NewFleet returns a Fleet that has published nothing.
func NewFleet(w Wire) *Fleet {
	return &Fleet{wire: w, now: time.Now, running: &config.Config{}, sent: map[string]sent{}}
}

// Publish hands out what changed. It does not wait for the proxies: what they say comes in over time, by Ack and Serving.
func (f *Fleet) Publish(_ context.Context, p *plan.Plan) Ack {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	parts := plan.Split(p.Config, p.Gateways, f.parts)
	for gateway := range f.parts {
		if parts[gateway] == nil {
			f.wire.Remove(gateway)
			delete(f.sent, gateway)
		}
	}
	for _, gateway := range slices.Sorted(maps.Keys(parts)) {
		if f.parts[gateway] == parts[gateway] {
			continue
		}
		f.sent[gateway] = sent{version: f.version, at: f.now(), err: f.wire.Set(gateway, f.version, parts[gateway])}
	}
	f.parts, f.running = parts, p.Config
	return f.ack()
}

// Running returns the configuration that was published last, of all Gateways.
func (f *Fleet) Running() *config.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// Parts returns what each Gateway's proxies are to run, by "namespace/name".
func (f *Fleet) Parts() map[string]*config.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.parts)
}

// Ack returns what of the last plan does not serve, as far as proxies have said.
func (f *Fleet) Ack() Ack {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ack()
}

func (f *Fleet) ack() Ack {
	a := Ack{Version: f.version, Applied: config.Applied{Listeners: map[string]error{}, Clusters: map[string]error{}}}
	note := func(to map[string]error, proxy string, found map[string]string) {
		for name, why := range found {
			if to[name] == nil {
				to[name] = fmt.Errorf("proxy %s: %s", proxy, why)
			}
		}
	}
	for gateway := range f.sent {
		for _, p := range f.wire.Proxies(gateway) {
			note(a.Applied.Listeners, p.Name, p.Listeners)
			note(a.Applied.Clusters, p.Name, p.Clusters)
		}
	}
	return a
}

// Connected returns the number of connected proxies of each Gateway.
func (f *Fleet) Connected() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]int, len(f.sent))
	for gateway := range f.sent {
		out[gateway] = len(f.wire.Proxies(gateway))
	}
	return out
}

// Standing is how the proxies of one Gateway stand to what was published for them.
type Standing struct {
	// Acknowledged counts the proxies that run it, Behind those that run something older and have not refused it.
	Acknowledged, Behind int
	// Refused are the proxies that refused it as a whole, with the reason.
	Refused []string
	// Listeners are those that some proxy cannot serve, and why.
	Listeners map[string]string
	// Age is how long ago it was published, Short for how long fewer proxies run it than are ready; 0 when enough do.
	Age, Short time.Duration
}

// Standing returns how the proxies of a Gateway stand, of which ready are ready as the cluster says. A proxy that has just connected and runs
// nothing counts nowhere. It returns false for a Gateway that nothing was published for.
func (f *Fleet) Standing(gateway string, ready int) (Standing, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	newest, ok := f.sent[gateway]
	if !ok {
		return Standing{}, false
	}
	s := Standing{Age: f.now().Sub(newest.at), Listeners: map[string]string{}}
	if newest.err != nil {
		s.Refused = append(s.Refused, "the controller: "+newest.err.Error())
	}
	for _, p := range f.wire.Proxies(gateway) {
		switch {
		case p.Refused != "":
			s.Refused = append(s.Refused, p.Name+": "+p.Refused)
		case p.Version >= newest.version:
			s.Acknowledged++
		case p.Version != 0:
			s.Behind++
		}
		for name, why := range p.Listeners {
			s.Listeners[name] = cmp.Or(s.Listeners[name], p.Name+": "+why)
		}
	}
	if s.Acknowledged >= ready {
		newest.short = time.Time{}
	} else {
		if newest.short.IsZero() {
			newest.short = f.now()
		}
		// At least the smallest time there is, so that 0 says that enough run it.
		s.Short = max(f.now().Sub(newest.short), 1)
	}
	f.sent[gateway] = newest
	return s, true
}

// Err returns the errors of what could not be sent.
func (f *Fleet) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []error
	for _, gateway := range slices.Sorted(maps.Keys(f.sent)) {
		all = append(all, f.sent[gateway].err)
	}
	return errors.Join(all...)
}
