package behaviour

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"errors"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

func dialUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// answer sends a datagram and returns what comes back, sending again now and then: a datagram may be lost.
func answer(t testing.TB, c *net.UDPConn, text string) string {
	t.Helper()
	room := make([]byte, 64<<10)
	for end := time.Now().Add(harness.Patience); time.Now().Before(end); {
		if _, err := c.Write([]byte(text)); err != nil {
			continue // what came back for the one before: nobody there
		}
		_ = c.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		if n, err := c.Read(room); err == nil {
			return string(room[:n])
		}
	}
	t.Fatalf("no answer to %q", text[:min(len(text), 50)])
	return ""
}

// unanswered wants nothing back for a while.
func unanswered(t testing.TB, c *net.UDPConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	room := make([]byte, 1<<10)
	if n, err := c.Read(room); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v, want nothing", room[:n], err)
	}
}

func udpConfig(port uint16, route *config.StreamRoute, clusters ...*config.Cluster) *config.Config {
	return harness.Config([]*config.Listener{harness.FlowListener(config.UDP, "udp", "", port, route)}, clusters...)
}

func TestUDP(t *testing.T) {
	t.Parallel()
	one := harness.NewUDPOrigin(t, "one").Cluster("one")
	seen := newFlowLog(t)
	_, address, _ := flowBed(t, harness.GatewayOptions{
		Limits: downstream.Limits{SessionIdleTimeout: time.Second}, Telemetry: seen.telemetry,
	}, func(port uint16) *config.Config {
		return udpConfig(port, harness.FlowRoute("r", nil, harness.To(one)...), one)
	})
	a, b := dialUDP(t, address), dialUDP(t, address)
	for _, text := range []string{"first", "", strings.Repeat("x", 9000), strings.Repeat("y", 60_000)} {
		if got := answer(t, a, text); got != "one "+text {
			t.Errorf("a got %d bytes for %d", len(got), len(text))
		}
		if got := answer(t, b, text+"b"); got != "one "+text+"b" {
			t.Errorf("b got %d bytes for %d", len(got), len(text))
		}
	}
	clients := map[any]bool{a.LocalAddr().String(): true, b.LocalAddr().String(): true}
	for range 2 { // the sessions end by themselves
		line := seen.line(t)
		if !clients[line["client"]] || line["protocol"] != "UDP" || line["flag"] != "-" || line["cluster"] != one.Name || line["bytes_in"].(float64) < 69_000 {
			t.Errorf("got the line %v", line)
		}
		delete(clients, line["client"])
	}
	if got := answer(t, a, "again"); got != "one again" {
		t.Errorf("got %q from a new session", got)
	}
}

func TestUDPWeights(t *testing.T) {
	seven, three, none := harness.NewUDPOrigin(t, "seven").Cluster("seven"), harness.NewUDPOrigin(t, "three").Cluster("three"), harness.NewUDPOrigin(t, "none").Cluster("none")
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		return udpConfig(port, harness.FlowRoute("r", nil, config.Backend{Cluster: none.Name}, config.Backend{Cluster: seven.Name, Weight: 7},
			config.Backend{Cluster: three.Name, Weight: 3}), none, seven, three)
	})
	got := map[string]int{}
	for range 300 {
		c := dialUDP(t, address)
		name, _, _ := strings.Cut(answer(t, c, "x"), " ")
		got[name]++
		c.Close()
	}
	if got["none"] > 0 || got["seven"] < 170 || got["three"] < 50 {
		t.Errorf("got %v, want 7:3", got)
	}
}

func TestUDPSessionBound(t *testing.T) {
	t.Parallel()
	one := harness.NewUDPOrigin(t, "one").Cluster("one")
	_, address, _ := flowBed(t, harness.GatewayOptions{
		Limits: downstream.Limits{MaxSessions: 2, SessionIdleTimeout: 2 * time.Second},
	}, func(port uint16) *config.Config {
		return udpConfig(port, harness.FlowRoute("r", nil, harness.To(one)...), one)
	})
	a, b, c := dialUDP(t, address), dialUDP(t, address), dialUDP(t, address)
	answer(t, a, "x")
	answer(t, b, "x")
	unanswered(t, c, "x")
	if got := answer(t, a, "y"); got != "one y" {
		t.Errorf("a present session got %q", got)
	}
	if got := answer(t, c, "z"); got != "one z" { // when the first have ended
		t.Errorf("got %q", got)
	}
}

// Datagrams that cannot be served are dropped, with one line in the log and not one for each; when the route changes they are served.
func TestUDPRefused(t *testing.T) {
	t.Parallel()
	one := harness.NewUDPOrigin(t, "one").Cluster("one")
	seen := newFlowLog(t)
	var port uint16
	g, address, _ := flowBed(t, harness.GatewayOptions{Telemetry: seen.telemetry}, func(p uint16) *config.Config {
		port = p
		return udpConfig(port, harness.FlowRoute("r", nil, config.Backend{Invalid: "BackendNotFound", Weight: 1}))
	})
	c := dialUDP(t, address)
	for range 100 {
		_, _ = c.Write([]byte("x"))
	}
	unanswered(t, c, "x")
	if line := seen.line(t); line["flag"] != "invalid_backend" || line["bytes_out"] != 0.0 {
		t.Errorf("got the line %v", line)
	}
	if n := len(seen.lines); n > 1 {
		t.Errorf("%d more lines for one client within a second", n)
	}
	g.Apply(udpConfig(port, harness.FlowRoute("r", nil, harness.To(one)...), one))
	if got := answer(t, c, "y"); got != "one y" {
		t.Errorf("got %q", got)
	}
}

// A session does not outlive its endpoint, whether that leaves the configuration or is just not there.
func TestUDPEndpointsGo(t *testing.T) {
	t.Parallel()
	one, two := harness.NewUDPOrigin(t, "one"), harness.NewUDPOrigin(t, "two")
	cluster := one.Cluster("c")
	var port uint16
	g, address, _ := flowBed(t, harness.GatewayOptions{}, func(p uint16) *config.Config {
		port = p
		return udpConfig(port, harness.FlowRoute("r", nil, harness.To(cluster)...), cluster)
	})
	c := dialUDP(t, address)
	if got := answer(t, c, "x"); got != "one x" {
		t.Fatalf("got %q", got)
	}
	moved := *cluster
	moved.Endpoints = []netip.AddrPort{two.Addr}
	g.Apply(udpConfig(port, harness.FlowRoute("r", nil, harness.To(&moved)...), &moved))
	for end := time.Now().Add(harness.Patience); answer(t, c, "y") != "two y"; {
		if time.Now().After(end) {
			t.Fatal("the session stays with an endpoint that has left")
		}
	}
	two.Close()
	both := moved
	both.Endpoints = []netip.AddrPort{one.Addr, two.Addr}
	g.Apply(udpConfig(port, harness.FlowRoute("r", nil, harness.To(&both)...), &both))
	for end := time.Now().Add(harness.Patience); answer(t, c, "z") != "one z"; { // those that go to two are refused, and end their session
		if time.Now().After(end) {
			t.Fatal("the session stays with an endpoint that is not there")
		}
	}
}

// A UDP listener on the port of HTTPS has it; HTTPS goes on without HTTP/3.
func TestUDPTakesThePortOfHTTP3(t *testing.T) {
	one := harness.NewUDPOrigin(t, "one").Cluster("one")
	cert := harness.NewCertificate(t, "front", "web.test")
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		web, webCluster := named(t, "web", "web.test", port, cert)
		return &config.Config{
			Listeners:    []*config.Listener{harness.FlowListener(config.UDP, "udp", "", port, harness.FlowRoute("r", nil, harness.To(one)...)), web},
			Clusters:     []*config.Cluster{one, webCluster},
			Certificates: []*config.Certificate{cert},
		}
	})
	if got := answer(t, dialUDP(t, address), "x"); got != "one x" {
		t.Errorf("got %q", got)
	}
	client := harness.NewClient(t, harness.H2, harness.ClientOptions{Address: address, Host: "web.test", TLS: harness.ClientTLS("web.test")})
	if r := harness.MustDo(t, client, harness.Request{Authority: "web.test"}); r.Status != 200 || r.Fields.Has("Alt-Svc") {
		t.Errorf("got %d, Alt-Svc %q", r.Status, r.Fields.Get("Alt-Svc"))
	}
}

// A socket that goes lets its sessions finish.
func TestUDPDrain(t *testing.T) {
	t.Parallel()
	one := harness.NewUDPOrigin(t, "one").Cluster("one")
	seen := newFlowLog(t)
	g, address, _ := flowBed(t, harness.GatewayOptions{DrainTime: time.Second, Telemetry: seen.telemetry}, func(port uint16) *config.Config {
		return udpConfig(port, harness.FlowRoute("r", nil, harness.To(one)...), one)
	})
	a, b := dialUDP(t, address), dialUDP(t, address)
	answer(t, a, "x")
	g.Apply(&config.Config{})
	unanswered(t, b, "x")
	if got := answer(t, a, "y"); got != "one y" {
		t.Errorf("got %q", got)
	}
	if line := seen.line(t); line["client"] != a.LocalAddr().String() {
		t.Errorf("got the line %v", line)
	}
}

// On a socket for all interfaces answers come from the address that was asked.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	t.Parallel()
	one := harness.NewUDPOrigin(t, "one").Cluster("one")
	var port uint16
	_, _, _ = flowBed(t, harness.GatewayOptions{}, func(p uint16) *config.Config {
		port = p
		cfg := udpConfig(port, harness.FlowRoute("r", nil, harness.To(one)...), one)
		cfg.Listeners[0].Addresses = nil
		return cfg
	})
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		address := netip.AddrPortFrom(netip.MustParseAddr(host), port).String()
		if host == "::1" {
			if probe, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
				continue // no IPv6 here
			} else {
				probe.Close()
			}
		}
		// A connected socket takes datagrams from that address alone.
		if got := answer(t, dialUDP(t, address), "x"); got != "one x" {
			t.Errorf("%s: got %q", host, got)
		}
	}
}
