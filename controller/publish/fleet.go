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
	// Proxies returns the connected proxies, sorted by name and then by how long they are connected, the latest last.
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

// Settle is how long proxies usually take at the most to run what was published: some milliseconds, and more while they start.
const Settle = time.Second

// sent is what a Gateway's proxies are to run.
//
// Where endpoints and routes change all the time, some proxy of many is always a few milliseconds behind, and one that hangs is behind a
// version that is never old. So a proxy is measured by what it must have by now: the version that brought the listeners as they are, and
// any that is older than Settle.
//
//	versions   4 listeners   5    6    7    8 newest
//	age        9 s           3 s  2 s  10ms 0
//	a proxy that runs 6, 7 or 8 has what it must; one that runs 5 is behind
type sent struct {
	version uint64
	at      time.Time
	// uid is the Gateway's: another Gateway of the name begins with generation 1 again.
	uid string
	// listeners is the version that brought the listeners in their generations, listenersAt when.
	listeners   uint64
	listenersAt time.Time
	// due is a version that was published at least Settle ago, coming the next to be one, published at comingAt.
	due, coming uint64
	comingAt    time.Time
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
	uids := make(map[string]string, len(p.Gateways))
	for i := range p.Gateways {
		uids[p.Gateways[i].Key()] = p.Gateways[i].UID
	}
	for _, gateway := range slices.Sorted(maps.Keys(parts)) {
		if f.parts[gateway] == parts[gateway] {
			continue
		}
		same := f.sent[gateway].uid == uids[gateway] && sameListeners(f.parts[gateway], parts[gateway])
		next := f.sent[gateway].next(f.version, f.now(), same, f.wire.Set(gateway, f.version, parts[gateway]))
		next.uid = uids[gateway]
		f.sent[gateway] = next
	}
	f.parts, f.running = parts, p.Config
	return f.ack()
}

// next returns what is known once another version is published.
func (s sent) next(version uint64, now time.Time, sameListeners bool, err error) sent {
	s.version, s.at, s.err = version, now, err
	if !sameListeners {
		s.listeners, s.listenersAt = version, now
	}
	if s.coming == 0 || now.Sub(s.comingAt) >= Settle {
		s.due, s.coming, s.comingAt = s.coming, version, now
	}
	return s
}

// must returns the version that every proxy should run by now, and how long ago it was published.
func (s sent) must(now time.Time) (version uint64, age time.Duration) {
	due, age := s.due, Settle
	switch {
	case s.err != nil || now.Sub(s.at) >= Settle:
		due, age = s.version, now.Sub(s.at)
	case now.Sub(s.comingAt) >= Settle:
		due, age = s.coming, now.Sub(s.comingAt)
	}
	if s.listeners > due {
		return s.listeners, now.Sub(s.listenersAt)
	}
	return due, age
}

// sameListeners reports whether two configurations have the same listeners in the same generations.
func sameListeners(a, b *config.Config) bool {
	return a != nil && slices.EqualFunc(a.Listeners, b.Listeners, func(x, y *config.Listener) bool {
		return x == y || x.Name == y.Name && x.Origin == y.Origin
	})
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
	// A proxy's word counts for what it was given and no more: it runs where others than the controller's owner may change it.
	note := func(to map[string]error, name, proxy string, found map[string]string) {
		if why, ok := found[name]; ok && to[name] == nil {
			to[name] = fmt.Errorf("proxy %s: %s", proxy, why)
		}
	}
	for gateway := range f.sent {
		part := f.parts[gateway]
		for _, p := range f.wire.Proxies(gateway) {
			if part == nil || len(p.Listeners)+len(p.Clusters) == 0 {
				continue
			}
			for _, l := range part.Listeners {
				note(a.Applied.Listeners, l.Name, p.Name, p.Listeners)
			}
			for _, c := range part.Clusters {
				note(a.Applied.Clusters, c.Name, p.Name, p.Clusters)
			}
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
	// Acknowledged counts the proxies that run it, or something that is newer than what they must have by now (sent); Behind those that
	// run something older and have not refused it.
	Acknowledged, Behind int
	// Refused are the proxies that refused it as a whole, with the reason.
	Refused []string
	// Listeners are those that some proxy cannot serve, and why.
	Listeners map[string]string
	// Age is how long ago that was published which they must have, Short for how long fewer proxies run it than are ready; 0 when enough do.
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
	must, age := newest.must(f.now())
	s := Standing{Age: age, Listeners: map[string]string{}}
	if newest.err != nil {
		s.Refused = append(s.Refused, "the controller: "+newest.err.Error())
	}
	proxies := f.wire.Proxies(gateway)
	for i, p := range proxies {
		if i+1 < len(proxies) && proxies[i+1].Name == p.Name {
			continue // a connection from before the proxy's last start, which is not yet known to be dead: it is no second proxy
		}
		switch {
		case p.Refused != "":
			s.Refused = append(s.Refused, p.Name+": "+p.Refused)
		case p.Version != 0 && p.Version >= must:
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
