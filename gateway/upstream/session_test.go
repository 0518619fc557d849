package upstream

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

var (
	sessionKey   = config.Secret(bytes.Repeat([]byte("k"), 32))
	sessionPlace = netip.MustParseAddrPort("10.0.0.7:8080")
)

func newSession(t testing.TB, c config.Persistence) *Session {
	t.Helper()
	if c.Key == nil {
		c.Key = sessionKey
	}
	if c.Name == "" {
		c.Name = "sid"
	}
	s, err := NewSession(&c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSessionToken: a token leads back to where it was made for, and only with its own key and name, for as long as it lasts.
func TestSessionToken(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	s := newSession(t, config.Persistence{AbsoluteTimeout: time.Hour})
	for _, endpoint := range []string{"10.0.0.7:8080", "[2001:db8::1]:443", "[::ffff:1.2.3.4]:1"} {
		addr := netip.MustParseAddrPort(endpoint)
		token := s.Seal("Service/a/b/80", addr, began)
		if token != s.Seal("Service/a/b/80", addr, began) {
			t.Errorf("%s: the same content gave two tokens", endpoint)
		}
		got, ok := s.Open(token, began.Add(time.Hour-1))
		if !ok || got.Endpoint != addr || !got.Since.Equal(began) || !got.In("Service/a/b/80") || got.In("Service/a/b/81") {
			t.Errorf("%s: got %+v, %v", endpoint, got, ok)
		}
		if strings.Contains(token, endpoint) || len(token) > mostToken {
			t.Errorf("token %q", token)
		}
		for name, other := range map[string]*Session{
			"another key":  newSession(t, config.Persistence{Key: bytes.Repeat([]byte("l"), 32)}),
			"another name": newSession(t, config.Persistence{Name: "other"}),
		} {
			if _, ok := other.Open(token, began); ok {
				t.Errorf("%s: the token is taken with %s", endpoint, name)
			}
		}
		if _, ok := s.Open(token, began.Add(time.Hour)); ok {
			t.Errorf("%s: the token outlives its session", endpoint)
		}
	}
}

// TestSessionTokenChanged: a token with any bit changed, cut short or with something added is none.
func TestSessionTokenChanged(t *testing.T) {
	s := newSession(t, config.Persistence{})
	token := s.Seal("c", sessionPlace, time.Now())
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			changed := bytes.Clone(raw)
			changed[i] ^= 1 << bit
			if _, ok := s.Open(base64.RawURLEncoding.EncodeToString(changed), time.Now()); ok {
				t.Errorf("bit %d of byte %d does not count", bit, i)
			}
		}
		if _, ok := s.Open(base64.RawURLEncoding.EncodeToString(raw[:i]), time.Now()); ok {
			t.Errorf("%d bytes are enough", i)
		}
	}
	for _, other := range []string{token + "A", token + "=", " " + token, token + "\n", "", strings.Repeat("A", 1000)} {
		if _, ok := s.Open(other, time.Now()); ok {
			t.Errorf("%q is taken", other)
		}
	}
}

// TestSessionFind: the token is found among other cookies, and one that leads nowhere does not hide one that does.
func TestSessionFind(t *testing.T) {
	cookie, header := newSession(t, config.Persistence{}), newSession(t, config.Persistence{Header: true, Name: "X-Session"})
	good := cookie.Seal("c", sessionPlace, time.Now())
	elsewhere := cookie.Seal("d", sessionPlace, time.Now())
	inHeader := header.Seal("c", sessionPlace, time.Now())
	tests := map[string]struct {
		session *Session
		fields  []string
		want    bool
	}{
		"none":           {cookie, nil, false},
		"alone":          {cookie, []string{"Cookie", "sid=" + good}, true},
		"among others":   {cookie, []string{"Cookie", "a=b; sid=" + good + ";c=d"}, true},
		"second line":    {cookie, []string{"Cookie", "a=b", "cookie", "sid=" + good}, true},
		"after a wrong":  {cookie, []string{"Cookie", "sid=junk; sid=" + elsewhere + "; sid=" + good}, true},
		"elsewhere only": {cookie, []string{"Cookie", "sid=" + elsewhere}, false},
		"other case":     {cookie, []string{"Cookie", "SID=" + good}, false},
		"in a header":    {cookie, []string{"sid", good}, false},
		"header":         {header, []string{"x-session", inHeader}, true},
		"header's name":  {header, []string{"x-session", good}, false},
		"not a cookie":   {header, []string{"Cookie", "X-Session=" + inHeader}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var fields exchange.Fields
			for i := 0; i < len(tt.fields); i += 2 {
				fields.Add(tt.fields[i], tt.fields[i+1])
			}
			got, ok := tt.session.Find(fields, func(p *Place) bool { return p.In("c") })
			if ok != tt.want || ok && got.Endpoint != sessionPlace {
				t.Errorf("got %v, %v", got, ok)
			}
		})
	}
}

// TestSessionIssue: the attributes that a cookie gets.
func TestSessionIssue(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		config config.Persistence
		since  time.Time
		secure bool
		want   string
	}{
		"session":   {config.Persistence{AbsoluteTimeout: time.Hour}, now, false, "sid=T; Path=/; HttpOnly; SameSite=Lax"},
		"secure":    {config.Persistence{Path: "/a"}, now, true, "sid=T; Path=/a; HttpOnly; SameSite=Lax; Secure"},
		"permanent": {config.Persistence{Permanent: true, AbsoluteTimeout: time.Hour}, now.Add(-time.Hour / 2), false, "sid=T; Path=/; HttpOnly; SameSite=Lax; Max-Age=1799"},
		"over":      {config.Persistence{Permanent: true, AbsoluteTimeout: time.Hour}, now.Add(-2 * time.Hour), false, "sid=T; Path=/; HttpOnly; SameSite=Lax; Max-Age=1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var fields exchange.Fields
			fields.Add("Set-Cookie", "endpoint=1")
			newSession(t, tt.config).Issue(&fields, "T", tt.since, tt.secure)
			if len(fields) != 2 || fields[1].Name != "Set-Cookie" || fields[1].Value != tt.want {
				t.Errorf("got %v, want %s", fields, tt.want)
			}
		})
	}
}

// TestSessionRefused: words that would break a cookie, and keys that protect nothing.
func TestSessionRefused(t *testing.T) {
	for name, c := range map[string]config.Persistence{
		"no key": {Name: "a"}, "short key": {Name: "a", Key: config.Secret("short")}, "no name": {Key: sessionKey},
		"name": {Name: "a b", Key: sessionKey}, "name=": {Name: "a=", Key: sessionKey}, "path": {Name: "a", Path: "/;x", Key: sessionKey},
		"control": {Name: "a", Path: "/\n", Key: sessionKey},
	} {
		if _, err := NewSession(&c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestClusterRules: session persistence and retry budgets change without a connection being lost.
func TestClusterRules(t *testing.T) {
	m := NewManager(Options{})
	t.Cleanup(func() { m.Close() })
	base := config.Cluster{Name: "c", Protocol: config.UpstreamHTTP1, Endpoints: []netip.AddrPort{sessionPlace}}
	apply := func(change func(*config.Cluster)) *Cluster {
		t.Helper()
		next := base
		change(&next)
		lease, problems := m.Apply([]*config.Cluster{&next})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		t.Cleanup(lease.Release)
		return lease.Cluster("c")
	}
	persistence := config.Persistence{Name: "a", Key: sessionKey}
	first := apply(func(*config.Cluster) {})
	if first.Session() != nil || !first.MayRetry() {
		t.Error("a cluster without rules has some")
	}
	second := apply(func(c *config.Cluster) {
		c.Persistence, c.RetryBudget = &persistence, &config.RetryBudget{Interval: time.Minute}
	})
	session := second.Session()
	if first != second || session == nil || second.MayRetry() {
		t.Error("the rules did not reach the cluster that is there")
	}
	same := persistence
	if apply(func(c *config.Cluster) { c.Persistence = &same }).Session() != session || !first.MayRetry() {
		t.Error("the same session persistence was made anew, or the budget stayed")
	}
	other := persistence
	other.Key = bytes.Repeat([]byte("n"), 32)
	if apply(func(c *config.Cluster) { c.Persistence = &other }).Session() == session {
		t.Error("a new key changed nothing")
	}
}

// TestPickSticky: the preferred endpoint, while it is there and was not tried.
func TestPickSticky(t *testing.T) {
	m := NewManager(Options{})
	t.Cleanup(func() { m.Close() })
	addrs := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1"), netip.MustParseAddrPort("10.0.0.3:1")}
	lease, _ := m.Apply([]*config.Cluster{{Name: "c", Protocol: config.UpstreamHTTP1, Endpoints: addrs}})
	t.Cleanup(lease.Release)
	c := lease.Cluster("c")
	for range 20 {
		e, fault := c.PickSticky(t.Context(), nil, addrs[1])
		if fault != nil || e.Addr() != addrs[1] {
			t.Fatalf("got %v, %v", e, fault)
		}
		other, fault := c.PickSticky(t.Context(), []*Endpoint{e}, addrs[1])
		if fault != nil || other.Addr() == addrs[1] {
			t.Fatalf("after it failed: got %v, %v", other, fault)
		}
		gone, fault := c.PickSticky(t.Context(), nil, netip.MustParseAddrPort("10.0.0.9:1"))
		if fault != nil {
			t.Fatal(fault)
		}
		e.Done()
		other.Done()
		gone.Done()
	}
}

// FuzzSessionToken: no token that was not sealed here is taken, and none makes trouble.
func FuzzSessionToken(f *testing.F) {
	s := newSession(f, config.Persistence{})
	good := s.Seal("c", sessionPlace, time.Unix(1_700_000_000, 0))
	foreign := newSession(f, config.Persistence{Key: bytes.Repeat([]byte("z"), 32)}).Seal("c", sessionPlace, time.Unix(1_700_000_000, 0))
	for _, seed := range []string{good, foreign, good[:40], "", "=", "AAAA", strings.Repeat("_", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok := s.Open(token, time.Unix(1_700_000_001, 0)); ok && token != good {
			t.Errorf("%q is taken", token)
		}
	})
}
