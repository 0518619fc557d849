package behaviour

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// tellers starts origins that answer with their address.
func tellers(t *testing.T, n int) (addrs []netip.AddrPort) {
	t.Helper()
	for range n {
		var o *harness.Origin
		o = harness.NewOrigin(t, harness.UpH1, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, o.Addr.String()) })
		addrs = append(addrs, o.Addr)
	}
	return addrs
}

func persistence(header bool) *config.Persistence {
	return &config.Persistence{Header: header, Name: "sid", Key: config.Secret(strings.Repeat("k", 32))}
}

// TestSessionPersistence: a client with a token goes where it was before, over every backend and endpoint, for as long as that is there.
func TestSessionPersistence(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		for _, header := range []bool{false, true} {
			for _, byCluster := range []bool{false, true} {
				t.Run(fmt.Sprintf("header=%v,cluster=%v", header, byCluster), func(t *testing.T) { sessionPersistence(t, d, header, byCluster) })
			}
		}
	})
}

func sessionPersistence(t *testing.T, d harness.Down, header, byCluster bool) {
	addrs := tellers(t, 6)
	left, right := harness.Cluster("left", harness.UpH1, addrs[:3]...), harness.Cluster("right", harness.UpH1, addrs[3:]...)
	env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, nil, backend(left), clusters(right))
	apply := func(left, right config.Cluster) {
		t.Helper()
		rule := &config.Rule{Name: "0", Backends: harness.To(&left, &right)}
		if byCluster {
			left.Persistence, right.Persistence = persistence(header), persistence(header)
		} else {
			rule.Persistence = persistence(header)
		}
		env.Gateway.Apply(harness.Config([]*config.Listener{harness.Listener(d, env.Port, harness.Route("r", rule))}, &left, &right))
	}
	apply(*left, *right)
	token := func(r *harness.Result) string {
		t.Helper()
		if header {
			return r.Fields.Get("sid")
		}
		cookie := r.Fields.Get("set-cookie")
		if cookie == "" {
			return ""
		}
		value, attributes, _ := strings.Cut(strings.TrimPrefix(cookie, "sid="), ";")
		if want := " Path=/; HttpOnly; SameSite=Lax"; attributes != want && attributes != want+"; Secure" || strings.HasSuffix(attributes, "Secure") != d.TLS() {
			t.Fatalf("got the cookie %q", cookie)
		}
		return value
	}
	send := func(token string) *harness.Result {
		t.Helper()
		req := harness.Request{}
		switch {
		case token != "" && header:
			req.Fields = harness.F("sid", token)
		case token != "":
			req.Fields = harness.F("cookie", "a=b; sid="+token)
		}
		return harness.MustDo(t, env.Client, req)
	}
	seen := map[string]string{} // token by endpoint
	for range 200 {
		r := send("")
		if seen[string(r.Body)] = token(r); token(r) == "" {
			t.Fatal("a new session got no token")
		}
	}
	if len(seen) != 6 {
		t.Fatalf("200 new sessions went to %d of 6 endpoints", len(seen))
	}
	for endpoint, tok := range seen {
		for range 5 {
			if r := send(tok); string(r.Body) != endpoint || token(r) != "" {
				t.Fatalf("a session on %s went to %s, with the token %q", endpoint, r.Body, token(r))
			}
		}
	}
	if r := send("AAAA" + seen[addrs[0].String()][4:]); token(r) == "" {
		t.Error("a token that was made up is taken")
	}
	// Its endpoint goes: the session stays on the backend and goes on with another endpoint.
	gone := seen[addrs[0].String()]
	fewer := *left
	fewer.Endpoints = addrs[1:3]
	apply(fewer, *right)
	r := send(gone)
	next := token(r)
	if got := string(r.Body); next == "" || got != addrs[1].String() && got != addrs[2].String() {
		t.Errorf("a session whose endpoint is gone went to %s with the token %q", got, next)
	}
	if again := send(next); string(again.Body) != string(r.Body) || token(again) != "" {
		t.Errorf("and then to %s", again.Body)
	}
}

// TestRetryBudget: retries that a route asks for stop when the budget is used up.
func TestRetryBudget(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		var asked atomic.Int64
		origin := harness.NewOrigin(t, harness.UpH1, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(503)
		}).Cluster("origin")
		origin.RetryBudget = &config.RetryBudget{Percent: 20, Interval: time.Hour, MinRetries: 3, MinInterval: time.Hour}
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, nil, backend(origin), rule(func(r *config.Rule) {
			r.Retry = &config.Retry{Attempts: 2, Codes: []int{503}, Backoff: time.Microsecond}
		}))
		for range 100 {
			if r := harness.MustDo(t, env.Client, harness.Request{}); r.Status != 503 {
				t.Fatalf("got %d", r.Status)
			}
		}
		// The first requests may retry at least three times; 20 % of 100 requests in all.
		if got := asked.Load(); got != 120 {
			t.Errorf("100 requests came as %d, want 120", got)
		}
	})
}
