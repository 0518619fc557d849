package publish

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
)

// fakeWire notes what it is told.
type fakeWire struct {
	calls   []string
	fail    map[string]error
	proxies map[string][]wire.Proxy
}

func (f *fakeWire) Set(gateway string, version uint64, c *config.Config) error {
	f.calls = append(f.calls, fmt.Sprintf("set %s %d %d", gateway, version, len(c.Listeners)))
	return f.fail[gateway]
}

func (f *fakeWire) Remove(gateway string) { f.calls = append(f.calls, "remove "+gateway) }

func (f *fakeWire) Proxies(gateway string) []wire.Proxy { return f.proxies[gateway] }

func (f *fakeWire) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(f.calls, want) {
		t.Errorf("told %q, want %q", f.calls, want)
	}
	f.calls = nil
}

func listener(gateway, name string) *config.Listener {
	return &config.Listener{Gateway: gateway, Name: gateway + "/" + name}
}

func planned(listeners []*config.Listener, gateways ...string) *plan.Plan {
	p := &plan.Plan{Config: &config.Config{Listeners: listeners}}
	for _, name := range gateways {
		p.Gateways = append(p.Gateways, plan.Gateway{Origin: config.Origin{Kind: "Gateway", Namespace: "n", Name: name}})
	}
	return p
}

// Only what changed is sent, each Gateway with versions of its own.
func TestFleetPublish(t *testing.T) {
	w := &fakeWire{fail: map[string]error{}}
	f := NewFleet(w)
	a, b := listener("n/a", "http"), listener("n/b", "http")
	f.Publish(t.Context(), planned([]*config.Listener{a, b}, "a", "b"))
	w.expect(t, "set n/a 1 1", "set n/b 1 1")
	f.Publish(t.Context(), planned([]*config.Listener{a, b}, "a", "b"))
	w.expect(t)
	a = listener("n/a", "http")
	if ack := f.Publish(t.Context(), planned([]*config.Listener{a}, "a")); ack.Version != 3 {
		t.Errorf("version %d", ack.Version)
	}
	w.expect(t, "remove n/b", "set n/a 3 1")
	if parts := f.Parts(); len(parts) != 1 || parts["n/a"].Listeners[0] != a {
		t.Errorf("parts %v", parts)
	}
	if _, ok := f.Standing("n/b", 1); ok {
		t.Error("a removed Gateway stands")
	}
	// A configuration that cannot be sent is that Gateway's trouble alone.
	w.fail["n/c"] = errors.New("too large")
	if ack := f.Publish(t.Context(), planned([]*config.Listener{a, listener("n/c", "http")}, "a", "c")); ack.Err != nil {
		t.Error(ack.Err)
	}
	w.expect(t, "set n/c 4 1")
	if s, _ := f.Standing("n/c", 0); len(s.Refused) != 1 {
		t.Errorf("standing %+v", s)
	}
	if f.Err() == nil {
		t.Error("no error is told")
	}
}

// A proxy says nothing of another Gateway's listeners and clusters.
func TestFleetAckOfOthers(t *testing.T) {
	w := &fakeWire{proxies: map[string][]wire.Proxy{
		"n/a": {{Name: "a", Version: 1, Listeners: map[string]string{"n/a/http": "taken", "n/b/http": "false", "n/x/http": "false"},
			Clusters: map[string]string{"b": "false"}}},
	}}
	f := NewFleet(w)
	f.Publish(t.Context(), planned([]*config.Listener{listener("n/a", "http"), listener("n/b", "http")}, "a", "b"))
	ack := f.Ack()
	if len(ack.Applied.Listeners) != 1 || ack.Applied.Listeners["n/a/http"] == nil || len(ack.Applied.Clusters) != 0 {
		t.Errorf("ack %+v", ack.Applied)
	}
}

func TestFleetStanding(t *testing.T) {
	w := &fakeWire{proxies: map[string][]wire.Proxy{}}
	f := NewFleet(w)
	now := time.Unix(1000, 0)
	f.now = func() time.Time { return now }
	f.Publish(t.Context(), planned([]*config.Listener{listener("n/a", "http")}, "a"))
	f.Publish(t.Context(), planned([]*config.Listener{listener("n/a", "http")}, "a"))
	now = now.Add(time.Second)
	standing := func(ready int, proxies ...wire.Proxy) Standing {
		t.Helper()
		w.proxies["n/a"] = proxies
		s, ok := f.Standing("n/a", ready)
		if !ok {
			t.Fatal("nothing published")
		}
		return s
	}
	s := standing(2, wire.Proxy{Name: "starting"}, wire.Proxy{Name: "old", Version: 1}, wire.Proxy{Name: "new", Version: 2, Listeners: map[string]string{"n/a/http": "taken"}},
		wire.Proxy{Name: "stubborn", Version: 1, Refused: "no"})
	if s.Acknowledged != 1 || s.Behind != 1 || len(s.Refused) != 1 || s.Refused[0] != "stubborn: no" || s.Age != time.Second || s.Short <= 0 ||
		s.Listeners["n/a/http"] != "new: taken" {
		t.Errorf("%+v", s)
	}
	if ack := f.Ack(); ack.Applied.Listeners["n/a/http"] == nil {
		t.Errorf("ack %+v", ack)
	}
	now = now.Add(time.Minute)
	if s := standing(2, wire.Proxy{Name: "new", Version: 2}); s.Short != time.Minute {
		t.Errorf("short for %v", s.Short)
	}
	if s := standing(1, wire.Proxy{Name: "new", Version: 2}); s.Short != 0 || s.Acknowledged != 1 {
		t.Errorf("%+v", s)
	}
	if s := standing(2, wire.Proxy{Name: "new", Version: 2}); s.Short > time.Second {
		t.Errorf("short for %v, since just now", s.Short)
	}
}

// A proxy that started anew counts once, as what it is now, although its connection from before may look alive.
func TestFleetRestarted(t *testing.T) {
	w := &fakeWire{proxies: map[string][]wire.Proxy{"n/a": {{Name: "p", Version: 1}, {Name: "p", Version: 1}, {Name: "q", Refused: "no"}, {Name: "q", Version: 1}}}}
	f := NewFleet(w)
	f.Publish(t.Context(), planned([]*config.Listener{listener("n/a", "http")}, "a"))
	if s, _ := f.Standing("n/a", 3); s.Acknowledged != 2 || len(s.Refused) != 0 || s.Short == 0 {
		t.Errorf("%+v", s)
	}
}

// While versions come faster than every proxy takes them over, those that keep up count as having them, and one that hangs shows.
func TestFleetStandingUnderChange(t *testing.T) {
	w := &fakeWire{proxies: map[string][]wire.Proxy{}}
	f := NewFleet(w)
	now := time.Unix(1000, 0)
	f.now = func() time.Time { return now }
	uid := "u1"
	publish := func(generation int64) {
		l := listener("n/a", "http")
		l.Origin.Generation = generation
		p := planned([]*config.Listener{l}, "a")
		p.Gateways[0].UID = uid
		f.Publish(t.Context(), p)
	}
	publish(1)
	for version := uint64(2); version < 50; version++ {
		now = now.Add(100 * time.Millisecond)
		publish(1)
		w.proxies["n/a"] = []wire.Proxy{{Name: "hangs", Version: 1}, {Name: "keeps up", Version: version - 1}}
		s, _ := f.Standing("n/a", 2)
		if hangs := version > 25; hangs && (s.Acknowledged != 1 || s.Behind != 1 || s.Age < Settle) {
			t.Fatalf("version %d: %+v", version, s)
		}
		if s.Acknowledged+s.Behind != 2 || s.Acknowledged == 0 {
			t.Fatalf("version %d: %+v", version, s)
		}
	}
	// Another generation is not acknowledged before every proxy runs it, nor is another Gateway of the name.
	acknowledged := func(version uint64) {
		t.Helper()
		w.proxies["n/a"] = []wire.Proxy{{Name: "keeps up", Version: version - 1}}
		if s, _ := f.Standing("n/a", 1); s.Behind != 1 || s.Age >= Settle {
			t.Errorf("version %d: %+v", version, s)
		}
		w.proxies["n/a"] = []wire.Proxy{{Name: "keeps up", Version: version}}
		if s, _ := f.Standing("n/a", 1); s.Acknowledged != 1 || s.Behind != 0 {
			t.Errorf("version %d: %+v", version, s)
		}
	}
	publish(2)
	acknowledged(50)
	uid = "u2"
	publish(2)
	acknowledged(51)
}
