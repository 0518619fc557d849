package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"gatehouse.dev/gatehouse/gateway/config"
)

// nameServer is a DNS server on loopback, over UDP and TCP on one port.
type nameServer struct {
	port    string
	overTCP atomic.Int64
	asked   chan string // the type of each question

	mu      sync.Mutex
	records map[string][]string // by "NAME TYPE": the answer section; guarded by mu
	rcode   int                 // guarded by mu
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	s := &nameServer{records: map[string][]string{}, asked: make(chan string, 100)}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port)
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{Listener: tcp, Handler: s}, {PacketConn: udp, Handler: s}} {
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = server.ActivateAndServe()
		}()
		receive(t, started, "starting the name server")
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-done
		})
	}
	return s
}

func (s *nameServer) set(name, kind string, answer ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[dns.Fqdn(name)+" "+kind] = answer
}

func (s *nameServer) fail(rcode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode = rcode
}

// ServeDNS answers from the records. A name that ends in "big.test." does not fit into UDP; one that begins with "silent" gets no answer.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, kind := q.Question[0].Name, dns.TypeToString[q.Question[0].Qtype]
	select {
	case s.asked <- kind:
	default:
	}
	if name == "silent.test." {
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	answer, known := s.records[name+" "+kind]
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	if s.rcode != 0 {
		m.Rcode, answer = s.rcode, nil
	}
	for _, line := range answer {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if _, tcp := w.LocalAddr().(*net.TCPAddr); tcp {
		s.overTCP.Add(1)
	} else if name == "big.test." {
		m.Truncated, m.Answer = true, nil
	}
	_ = w.WriteMsg(m)
}

// resolver returns the system's resolver with this server in place of those of resolv.conf, and without anything behind it.
func (s *nameServer) resolver(servers ...string) dnsResolver {
	if servers == nil {
		servers = []string{"127.0.0.1"}
	}
	return dnsResolver{
		hosts:  os.DevNull,
		config: func() (*dns.ClientConfig, error) { return &dns.ClientConfig{Servers: servers, Port: s.port}, nil },
		other: func(context.Context, string, string) ([]netip.Addr, error) {
			return nil, errors.New("nobody else knows it")
		},
	}
}

func TestLookup(t *testing.T) {
	s := newNameServer(t)
	s.set("both.test", "A", "both.test. 60 IN A 192.0.2.2", "both.test. 30 IN A 192.0.2.1")
	s.set("both.test", "AAAA", "both.test. 40 IN AAAA 2001:db8::1")
	s.set("four.test", "A", "four.test. 7 IN A 192.0.2.4")
	s.set("four.test", "AAAA")
	chain := []string{"alias.test. 3 IN CNAME middle.test.", "middle.test. 100 IN CNAME end.test.", "end.test. 200 IN A 192.0.2.9"}
	s.set("alias.test", "A", chain...)
	s.set("alias.test", "AAAA", chain[:2]...)
	var big []string
	var bigAddrs []string
	for i := range 100 {
		big = append(big, fmt.Sprintf("big.test. 9 IN A 192.0.2.%d", i+1))
		bigAddrs = append(bigAddrs, fmt.Sprintf("192.0.2.%d", i+1))
	}
	s.set("big.test", "A", big...)
	s.set("big.test", "AAAA")

	tests := map[string]struct {
		host    string
		want    []string
		wantTTL time.Duration
	}{
		"both families, the least TTL":      {"both.test", []string{"192.0.2.2", "192.0.2.1", "2001:db8::1"}, 30 * time.Second},
		"trailing dot":                      {"four.test.", []string{"192.0.2.4"}, 7 * time.Second},
		"a CNAME on the way bounds the TTL": {"alias.test", []string{"192.0.2.9"}, 3 * time.Second},
		"truncated answer comes by TCP":     {"big.test", bigAddrs, 9 * time.Second},
		"address":                           {"2001:db8::7", []string{"2001:db8::7"}, maxTTL},
		"unknown name":                      {"none.test", nil, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			addrs, ttl, err := s.resolver().Lookup(t.Context(), tt.host)
			if (err != nil) != (tt.want == nil) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			if !slices.Equal(got, tt.want) || ttl != tt.wantTTL {
				t.Errorf("got %v for %v, want %v for %v", got, ttl, tt.want, tt.wantTTL)
			}
		})
	}
	if s.overTCP.Load() == 0 {
		t.Error("nothing was asked over TCP")
	}
}

// TestLookupSecondServer: a server that is down, or that fails, is not the last word.
func TestLookupSecondServer(t *testing.T) {
	s := newNameServer(t)
	s.set("four.test", "A", "four.test. 7 IN A 192.0.2.4")
	addrs, _, err := s.resolver("127.0.0.2", "127.0.0.1").Lookup(t.Context(), "four.test")
	if err != nil || len(addrs) != 1 {
		t.Errorf("got %v, %v", addrs, err)
	}
	s.fail(dns.RcodeServerFailure)
	if addrs, _, err := s.resolver().Lookup(t.Context(), "four.test"); err == nil {
		t.Errorf("got %v from a server that fails", addrs)
	}
}

func TestLookupOther(t *testing.T) {
	s := newNameServer(t)
	r := s.resolver()
	r.other = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host != "printer.local." {
			t.Errorf("asked for %q", host)
		}
		return []netip.Addr{netip.MustParseAddr("192.0.2.77")}, nil
	}
	addrs, ttl, err := r.Lookup(t.Context(), "printer.local")
	if err != nil || len(addrs) != 1 || ttl != hostsTTL {
		t.Errorf("got %v for %v, %v", addrs, ttl, err)
	}
}

func TestLookupHostsFile(t *testing.T) {
	s := newNameServer(t)
	s.set("db.test", "A", "db.test. 7 IN A 192.0.2.200")
	r := s.resolver()
	r.hosts = filepath.Join(t.TempDir(), "hosts")
	text := "# comment\n192.0.2.1 db.test DB # db.other\n2001:db8::1\tx DB.test\n192.0.2.2\nnonsense db.test\n"
	if err := os.WriteFile(r.hosts, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addrs, ttl, err := r.Lookup(t.Context(), "db.test.")
	if err != nil || ttl != hostsTTL || fmt.Sprint(addrs) != "[192.0.2.1 2001:db8::1]" {
		t.Errorf("got %v for %v, %v", addrs, ttl, err)
	}
	if addrs, _, err := r.Lookup(t.Context(), "db.other"); err == nil {
		t.Errorf("found %v in a comment", addrs)
	}
}

// TestLookupEndsWithContext: nobody waits for a server that does not answer.
func TestLookupEndsWithContext(t *testing.T) {
	s := newNameServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, _, err := s.resolver().Lookup(ctx, "silent.test")
		ended <- err
	}()
	receive(t, s.asked, "asking")
	began := time.Now()
	cancel()
	if err := receive(t, ended, "the lookup's end"); err == nil {
		t.Error("a name without answer resolved")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the lookup took %v to notice", took)
	}
}

// TestLookupRefusesAddresses that a name must not point at.
func TestLookupRefusesAddresses(t *testing.T) {
	tests := map[string]struct {
		answer   []string
		want     string // "" for an error
		loopback bool
	}{
		"metadata service":      {answer: []string{"169.254.169.254"}},
		"mapped link-local":     {answer: []string{"::ffff:169.254.169.254"}},
		"within IPv6":           {answer: []string{"64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:a9fe:a9fe::1", "2001:0:1::5601:5601", "::127.0.0.1"}},
		"outside IPv6":          {answer: []string{"2001:db8::1", "64:ff9b::c000:201"}, want: "[64:ff9b::c000:201 2001:db8::1]"},
		"IPv6 link-local":       {answer: []string{"fe80::1"}},
		"unspecified":           {answer: []string{"0.0.0.0", "::"}},
		"multicast":             {answer: []string{"224.0.0.1", "ff02::1"}},
		"none":                  {},
		"one good one":          {answer: []string{"169.254.1.1", "192.0.2.1"}, want: "[192.0.2.1]"},
		"sorted, each once":     {answer: []string{"192.0.2.2", "192.0.2.1", "::ffff:192.0.2.2"}, want: "[192.0.2.1 192.0.2.2]"},
		"loopback":              {answer: []string{"127.0.0.1", "::1", "::ffff:127.0.0.9"}},
		"loopback is a backend": {answer: []string{"127.0.0.1"}, want: "[127.0.0.1]", loopback: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := &answers{ttl: time.Second}
			for _, a := range tt.answer {
				r.addrs = append(r.addrs, netip.MustParseAddr(a))
			}
			got, _, err := lookup(t.Context(), r, &config.DNS{Host: "a.test", Loopback: tt.loopback})
			if (err != nil) != (tt.want == "") || err == nil && fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// answers is a Resolver that notes when it was asked.
type answers struct {
	mu    sync.Mutex
	addrs []netip.Addr
	ttl   time.Duration
	err   error
	asked []time.Duration // since the first time
	began time.Time
}

func (a *answers) Lookup(context.Context, string) ([]netip.Addr, time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.began.IsZero() {
		a.began = time.Now()
	}
	a.asked = append(a.asked, time.Since(a.began))
	return a.addrs, a.ttl, a.err
}

func (a *answers) set(ttl time.Duration, err error, addrs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addrs, a.ttl, a.err = nil, ttl, err
	for _, s := range addrs {
		a.addrs = append(a.addrs, netip.MustParseAddr(s))
	}
}

func (a *answers) times() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

func named(t *testing.T, r Resolver) *Cluster {
	t.Helper()
	lease, _ := newManager(t, Options{Resolve: r}).Apply([]*config.Cluster{{
		Name: "c", Protocol: config.UpstreamHTTP1, DNS: &config.DNS{Host: "a.test", Port: 80},
	}})
	t.Cleanup(lease.Release)
	return lease.Cluster("c")
}

// TestResolvedAgain: by the TTL within its bounds, and by doubling waits while the name does not resolve.
func TestResolvedAgain(t *testing.T) {
	failed := errors.New("no such host")
	tests := map[string]struct {
		ttl  time.Duration
		err  error
		span time.Duration
		want []time.Duration
	}{
		"TTL":           {ttl: 10 * time.Second, span: 25 * time.Second, want: []time.Duration{0, 10 * time.Second, 20 * time.Second}},
		"TTL of 0":      {ttl: 0, span: 2500 * time.Millisecond, want: []time.Duration{0, time.Second, 2 * time.Second}},
		"TTL of a week": {ttl: 7 * 24 * time.Hour, span: 11 * time.Minute, want: []time.Duration{0, 5 * time.Minute, 10 * time.Minute}},
		"failure": {err: failed, span: 100 * time.Second, want: []time.Duration{
			0, 500 * time.Millisecond, 1500 * time.Millisecond, 3500 * time.Millisecond, 7500 * time.Millisecond, 15500 * time.Millisecond,
			31500 * time.Millisecond, 61500 * time.Millisecond, 91500 * time.Millisecond,
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &answers{}
				r.set(tt.ttl, tt.err, "192.0.2.1")
				named(t, r)
				time.Sleep(tt.span) // of the bubble's clock
				synctest.Wait()
				if got := r.times(); !slices.Equal(got, tt.want) {
					t.Errorf("asked at %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// TestLastAddressesStay while a name does not resolve, and new ones take over when it does again.
func TestLastAddressesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &answers{}
		r.set(time.Second, nil, "192.0.2.1")
		c := named(t, r)
		synctest.Wait()
		kept := pick(t, c)
		for _, step := range []struct {
			err    error
			answer []string
			want   string
		}{
			{errors.New("no such host"), nil, "[192.0.2.1:80]"},
			{nil, []string{"169.254.169.254"}, "[192.0.2.1:80]"},
			{nil, []string{"192.0.2.1", "192.0.2.2"}, "[192.0.2.1:80 192.0.2.2:80]"},
		} {
			r.set(time.Second, step.err, step.answer...)
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := fmt.Sprint(c.Endpoints()); got != step.want {
				t.Errorf("endpoints %s, want %s", got, step.want)
			}
		}
		if c.set.Load().list[0] != kept {
			t.Error("an address that stayed lost its connections")
		}
	})
}

// TestUnresolvedFails: a request for a name that has never resolved is not kept waiting for the retries.
func TestUnresolvedFails(t *testing.T) {
	r := &answers{}
	r.set(0, errors.New("no such host"))
	c := named(t, r)
	if e, fault := c.Pick(t.Context(), nil); fault == nil {
		t.Errorf("picked %v", e)
	}
}

// TestNameOverDNS is the whole way, by a real server: an answer whose TTL is over is asked for again, and the new address takes effect.
func TestNameOverDNS(t *testing.T) {
	one := newOrigin(t, originOptions{}, hello)
	s := newNameServer(t)
	s.set("a.test", "A", "a.test. 1 IN A 127.0.0.1")
	s.set("a.test", "AAAA")
	lease, _ := newManager(t, Options{Resolve: s.resolver()}).Apply([]*config.Cluster{{
		Name: "c", Protocol: config.UpstreamHTTP1, DNS: &config.DNS{Host: "a.test", Port: one.addr.Port(), Loopback: true},
	}})
	t.Cleanup(lease.Release)
	c := lease.Cluster("c")
	get(t, c)
	s.set("a.test", "A", "a.test. 1 IN A 127.0.0.3")
	deadline := time.Now().Add(patience)
	for c.Endpoints()[0].Addr().String() != "127.0.0.3" {
		if time.Now().After(deadline) {
			t.Fatalf("endpoints %v", c.Endpoints())
		}
		receive(t, s.asked, "asking again")
	}
	receive(t, one.closed, "closing the connections to the old address")
	if one.requests.Load() != 1 {
		t.Error("a request went astray")
	}
}
