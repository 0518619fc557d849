package wire_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
	"gatehouse.dev/gatehouse/gateway/wire/client"
)

// TestManyProxies: changes come faster than they are applied, connections break, and every proxy of every Gateway ends up with its own.
func TestManyProxies(t *testing.T) {
	c := start(t, "")
	random := rand.New(rand.NewPCG(3, 4))
	const gateways, each, versions = 3, 4, 100
	want := map[string]*config.Config{}
	relay := newRelay(t, c.addr)
	var proxies []*proxy
	var of []string
	for g := range gateways {
		gateway := fmt.Sprintf("ns/%d", g)
		want[gateway] = sample(50 + g)
		for i := range each {
			proxies = append(proxies, follow(t, relay.addr, gateway, func(o *client.Options, _ *proxy) {
				o.Token = func() (string, error) { return fmt.Sprintf("%s %d", gateway, i), nil }
			}))
			of = append(of, gateway)
		}
	}
	for version := uint64(1); version <= versions; version++ {
		for gateway := range want {
			want[gateway] = mutate(random, want[gateway])
			c.set(t, gateway, version, want[gateway])
		}
		if version%30 == 0 {
			relay.cut()
		}
	}
	for gateway := range want {
		c.until(t, gateway, func(list []wire.Proxy) bool {
			for _, p := range list {
				if p.Version != versions || p.Refused != "" {
					return false
				}
			}
			return len(list) == each
		})
	}
	for i, p := range proxies {
		got := p.next(t)
		for len(p.configs) > 0 {
			got = p.next(t)
		}
		check(t, got, want[of[i]])
	}
}

// TestSlowReader: a proxy that reads nothing holds up nobody, neither Set, nor another proxy, nor Close.
func TestSlowReader(t *testing.T) {
	c := start(t, "")
	cfg := sample(5000)
	c.set(t, "ns/a", 1, cfg)
	slow := dialRaw(t, c.addr, "authorization", "Bearer ns/a 9")
	if err := slow.Send(firstRequest(nil)); err != nil {
		t.Fatal(err)
	}
	c.until(t, "ns/a", func(list []wire.Proxy) bool { return len(list) == 1 })
	p := follow(t, c.addr, "ns/a")
	check(t, p.next(t), cfg)
	next := withRoute(cfg, 1, 2)
	c.set(t, "ns/a", 2, next)
	check(t, p.next(t), next)
	c.until(t, "ns/a", func(list []wire.Proxy) bool {
		return len(list) == 2 && list[0].Version == 2 && list[1].Version == 0
	})
	closed := make(chan struct{})
	go func() {
		c.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close waits for a proxy that reads nothing")
	}
	if list := c.Proxies("ns/a"); len(list) != 0 {
		t.Errorf("proxies: %+v", list)
	}
}
