package wire_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
	"gatehouse.dev/gatehouse/gateway/wire/client"
)

// check compares a configuration that arrived with the one that was set.
func check(t testing.TB, got, want *config.Config) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return
	}
	t.Errorf("what arrived differs: %d listeners, %d clusters, %d certificates in place of %d, %d, %d", len(got.Listeners),
		len(got.Clusters), len(got.Certificates), len(want.Listeners), len(want.Clusters), len(want.Certificates))
	for i, l := range want.Listeners {
		if i < len(got.Listeners) && !reflect.DeepEqual(got.Listeners[i], l) {
			t.Errorf("listener %s differs: %d routes and %d streams in place of %d and %d", l.Name,
				len(got.Listeners[i].Routes), len(got.Listeners[i].Streams), len(l.Routes), len(l.Streams))
		}
	}
}

// TestDelta: each kind of change arrives, sends what it must and nothing else, and leaves every other pointer as it was.
func TestDelta(t *testing.T) {
	c := start(t, "")
	cfg := sample(1000)
	c.set(t, "ns/a", 1, cfg)
	p := follow(t, c.addr, "ns/a")
	before := p.next(t)
	check(t, before, cfg)
	c.acknowledged(t, "ns/a", 1)
	version := uint64(1)
	change := func(name string, mostResources, mostBytes int, next *config.Config) *config.Config {
		t.Helper()
		c.sent()
		version++
		c.set(t, "ns/a", version, next)
		got := p.next(t)
		c.acknowledged(t, "ns/a", version)
		check(t, got, next)
		messages, resources, bytes := c.sent()
		t.Logf("%s: %d resources, %d bytes", name, resources, bytes)
		if messages != 1 || resources == 0 || resources > mostResources || bytes > mostBytes {
			t.Errorf("%s sent %d messages, %d resources, %d bytes; at most 1, %d, %d are right", name, messages, resources, bytes,
				mostResources, mostBytes)
		}
		same, other := 0, 0
		for i, r := range got.Listeners[0].Routes {
			if i < len(before.Listeners[0].Routes) && r == before.Listeners[0].Routes[i] {
				same++
			} else {
				other++
			}
		}
		if len(got.Listeners[0].Routes) == len(before.Listeners[0].Routes) && other > 1 {
			t.Errorf("%s: %d routes have new pointers", name, other)
		}
		for i, l := range got.Listeners[1:] {
			if l != before.Listeners[i+1] {
				t.Errorf("%s: listener %s has a new pointer", name, l.Name)
			}
		}
		before, cfg = got, next
		return got
	}
	change("a route", 1, 600, withRoute(cfg, 501, 2)) // an odd one is on the first listener alone
	change("a route goes", 4, 12000, withRoutes(cfg, slices.Delete(slices.Clone(cfg.Listeners[0].Routes), 333, 334)))
	change("a route comes", 4, 12000, withRoutes(cfg, slices.Insert(slices.Clone(cfg.Listeners[0].Routes), 70, route(5000, 1))))

	clusters := change("endpoints", 1, 250, func() *config.Config {
		next := *cfg
		next.Clusters = slices.Clone(cfg.Clusters)
		next.Clusters[7] = cluster(7, 2)
		return &next
	}())
	if clusters.Clusters[8] == nil || clusters.Clusters[7].Endpoints[0].Addr().As4()[3] != 2 {
		t.Error("the endpoints are not the new ones")
	}
	change("endpoints go", 1, 200, func() *config.Config {
		next := *cfg
		next.Clusters = slices.Clone(cfg.Clusters)
		none := *cfg.Clusters[7]
		none.Endpoints = nil
		next.Clusters[7] = &none
		return &next
	}())
	change("a certificate", 1, 300, func() *config.Config {
		next := *cfg
		next.Certificates = []*config.Certificate{{Name: "ns/cert", Chain: "other", Key: config.Secret("other")}}
		return &next
	}())
	change("a listener's own fields", 1, 300, func() *config.Config {
		next := *cfg
		next.Listeners = slices.Clone(cfg.Listeners)
		l := *cfg.Listeners[0]
		l.Hostname = "*.example.com"
		next.Listeners[0] = &l
		return &next
	}())
	p.none(t)
}

// TestRandomChanges: whatever follows upon what, the proxy ends up with what was set, and a new proxy and a new controller agree.
func TestRandomChanges(t *testing.T) {
	c := start(t, "")
	random := rand.New(rand.NewPCG(1, 2))
	cfg := sample(300)
	c.set(t, "ns/a", 1, cfg)
	p := follow(t, c.addr, "ns/a")
	check(t, p.next(t), cfg)
	for version := uint64(2); version < 120; version++ {
		cfg = mutate(random, cfg)
		c.set(t, "ns/a", version, cfg)
		c.acknowledged(t, "ns/a", version)
		got := p.next(t)
		for len(p.configs) > 0 {
			got = p.next(t)
		}
		check(t, got, cfg)
		if t.Failed() {
			t.Fatalf("at version %d", version)
		}
	}
	// Another controller cuts the same configuration into the same resources. Only where one object is two routes, which the above makes
	// at random and no translator does, names depend on which was there first.
	cfg = withRoutes(sample(900), sample(950).Listeners[0].Routes)
	cfg.Listeners[1].Routes = cfg.Listeners[0].Routes[100:300]
	for i := 90; i < 95; i++ {
		cfg.Clusters = append(cfg.Clusters, cluster(i, 3))
	}
	c.set(t, "ns/a", 200, cfg)
	c.acknowledged(t, "ns/a", 200)
	check(t, p.next(t), cfg)
	c.stop()
	again := start(t, c.addr)
	again.set(t, "ns/a", 7, cfg)
	again.acknowledged(t, "ns/a", 7)
	if _, resources, _ := again.sent(); resources != 0 {
		t.Errorf("a new controller sent %d resources of a configuration that the proxy has", resources)
	}
	p.none(t)
}

// mutate makes some random changes that always change something.
func mutate(random *rand.Rand, cfg *config.Config) *config.Config {
	next := &config.Config{
		Listeners: slices.Clone(cfg.Listeners), Clusters: slices.Clone(cfg.Clusters), Certificates: slices.Clone(cfg.Certificates),
	}
	for range 1 + random.IntN(4) {
		i := random.IntN(len(next.Listeners))
		l := *next.Listeners[i]
		l.Routes = slices.Clone(l.Routes)
		switch at := random.IntN(len(l.Routes) + 1); random.IntN(6) {
		case 0:
			l.Routes = slices.Delete(l.Routes, at/2, (at+1)/2)
		case 1:
			l.Routes = slices.Insert(l.Routes, at, route(1000+random.IntN(1_000_000), 1))
		case 2:
			rest := l.Routes[at:]
			l.Routes = append(slices.Clone(rest), l.Routes[:at]...)
		case 3:
			l.Hostname = fmt.Sprintf("host-%d", random.IntN(1000))
		case 4:
			l.Streams = append(slices.Clone(l.Streams), &config.StreamRoute{
				Origin: config.Origin{Kind: "TLSRoute", Name: fmt.Sprint(random.IntN(1_000_000))}, Rule: "0",
			})
		case 5:
			for j, r := range l.Routes[at/2 : at] {
				changed := *r
				changed.Origin.Generation = random.Int64()
				l.Routes[at/2+j] = &changed
			}
		}
		if len(l.Routes) == 0 {
			l.Routes = nil
		}
		next.Listeners[i] = &l
	}
	if len(next.Listeners) > 1 && random.IntN(4) == 0 {
		next.Listeners = slices.Delete(next.Listeners, 0, 1)
	} else if random.IntN(2) == 0 {
		l := *next.Listeners[0]
		l.Name = fmt.Sprintf("ns/a/%d", random.Int64()) // unique, as names of listeners are
		next.Listeners = append(next.Listeners, &l)
		slices.SortFunc(next.Listeners, func(a, b *config.Listener) int { return strings.Compare(a.Name, b.Name) })
	}
	i := random.IntN(len(next.Clusters))
	next.Clusters[i] = cluster(i, byte(random.IntN(250)))
	if random.IntN(3) == 0 && len(next.Clusters) < 60 {
		next.Clusters = append(next.Clusters, cluster(len(next.Clusters), 1))
	}
	next.Certificates[0] = &config.Certificate{Name: "ns/cert", Key: config.Secret(fmt.Sprint(random.Int()))}
	return next
}

// TestParts: what is too big for one message arrives in several and is applied once, whole.
func TestParts(t *testing.T) {
	c := start(t, "")
	cfg := sample(100)
	for i := range 12 {
		cfg.Certificates = append(cfg.Certificates, &config.Certificate{
			Name: fmt.Sprintf("ns/x%02d", i), Chain: strings.Repeat("x", 1<<20), Key: config.Secret("k"),
		})
	}
	c.set(t, "ns/a", 3, cfg)
	p := follow(t, c.addr, "ns/a")
	check(t, p.next(t), cfg)
	c.acknowledged(t, "ns/a", 3)
	if messages, _, bytes := c.sent(); messages < 4 || bytes < 12<<20 {
		t.Errorf("%d bytes came in %d messages", bytes, messages)
	}
	p.none(t)
}

// TestTooBig: what no message can carry is refused by name, and what was set before stays.
func TestTooBig(t *testing.T) {
	c := start(t, "")
	cfg := sample(10)
	c.set(t, "ns/a", 1, cfg)
	next := *cfg
	next.Certificates = append(slices.Clone(cfg.Certificates), &config.Certificate{Name: "ns/huge", Chain: strings.Repeat("x", 9<<20)})
	err := c.Set("ns/a", 2, &next)
	if err == nil || !strings.Contains(err.Error(), "ns/a") || !strings.Contains(err.Error(), "certificate/ns/huge") {
		t.Errorf("got %v", err)
	}
	p := follow(t, c.addr, "ns/a")
	check(t, p.next(t), cfg)
	c.acknowledged(t, "ns/a", 1)
	c.set(t, "ns/a", 3, withRoute(cfg, 3, 2))
	check(t, p.next(t), withRoute(cfg, 3, 2))
}

// TestAnswers: what of a configuration does not serve, and why one was refused, is known of each proxy.
func TestAnswers(t *testing.T) {
	c := start(t, "")
	cfg := sample(10)
	var answer struct {
		applied config.Applied
		err     error
	}
	answers := make(chan struct{}, 1)
	p := follow(t, c.addr, "ns/a", func(_ *client.Options, p *proxy) {
		p.answer = func(*config.Config) (config.Applied, error) {
			<-answers
			return answer.applied, answer.err
		}
	})
	expect := func(condition func(wire.Proxy) bool) {
		t.Helper()
		c.until(t, "ns/a", func(list []wire.Proxy) bool { return len(list) == 1 && condition(list[0]) })
	}
	expect(func(p wire.Proxy) bool { return p.Name == "pods/1" && p.Version == 0 && !p.Since.IsZero() })

	c.set(t, "ns/a", 5, cfg)
	p.next(t)
	expect(func(p wire.Proxy) bool { return p.Version == 0 })
	answer.applied = config.Applied{
		Listeners: map[string]error{"ns/a/http": errors.New("address in use")}, Clusters: map[string]error{"c": errors.New("bad CA")},
	}
	answers <- struct{}{}
	expect(func(p wire.Proxy) bool {
		return p.Version == 5 && p.Listeners["ns/a/http"] == "address in use" && p.Clusters["c"] == "bad CA" && p.Refused == ""
	})

	answer.err = errors.New("it does not compile")
	c.set(t, "ns/a", 6, withRoute(cfg, 1, 2))
	p.next(t)
	answers <- struct{}{}
	expect(func(p wire.Proxy) bool {
		return p.Version == 5 && p.Refused == "it does not compile" && p.Listeners["ns/a/http"] == "address in use"
	})
	// A version of the same content is refused by the answer that was given.
	c.set(t, "ns/a", 7, withRoute(cfg, 1, 2))
	expect(func(p wire.Proxy) bool { return p.Version == 5 && p.Refused != "" })

	// The repair is sent as a change of what was refused, and is complete.
	answer.err, answer.applied = nil, config.Applied{}
	repaired := withRoute(cfg, 3, 2)
	c.sent()
	c.set(t, "ns/a", 8, repaired)
	answers <- struct{}{}
	expect(func(p wire.Proxy) bool {
		return p.Version == 8 && p.Refused == "" && len(p.Listeners) == 0 && len(p.Clusters) == 0
	})
	check(t, p.next(t), repaired)
	if _, resources, _ := c.sent(); resources != 2 {
		t.Errorf("the repair sent %d resources; the route that was refused and the one that changed are 2", resources)
	}
}

// TestSameContent: a version whose content is the one before is acknowledged without a message.
func TestSameContent(t *testing.T) {
	c := start(t, "")
	cfg := sample(10)
	c.set(t, "ns/a", 1, cfg)
	p := follow(t, c.addr, "ns/a")
	p.next(t)
	c.acknowledged(t, "ns/a", 1)
	c.sent()
	c.set(t, "ns/a", 2, cfg)
	c.acknowledged(t, "ns/a", 2)
	c.set(t, "ns/a", 3, sample(10)) // equal, by other pointers
	c.acknowledged(t, "ns/a", 3)
	if messages, _, _ := c.sent(); messages != 0 {
		t.Errorf("%d messages were sent", messages)
	}
	p.none(t)
}
