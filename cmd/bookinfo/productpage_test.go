package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fakeGateway answers the page's calls to reviews as a gateway with the example's rules would, and keeps what it was sent.
type fakeGateway struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

func newFakeGateway(t *testing.T) *fakeGateway {
	g := &fakeGateway{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.seen = append(g.seen, r.Clone(t.Context()))
		g.mu.Unlock()
		answer := reviewsAnswer{Version: "v1", Reviews: []review{{Reviewer: "<b>Reader</b>", Text: "fine"}}}
		switch {
		case r.URL.Path == "/reviews/2":
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case r.Header.Get("X-User") == "jason":
			answer.Version, answer.Reviews[0].Rating = "v2", &rating{Stars: 4, Color: "black"}
		case strings.Contains(r.Header.Get("Cookie"), "reviews=v3"):
			answer.Version, answer.Reviews[0].Rating = "v3", &rating{Stars: 2, Color: "red"}
		}
		writeJSON(w, http.StatusOK, answer)
	}))
	t.Cleanup(g.Close)
	return g
}

// last returns the newest request that the gateway got.
func (g *fakeGateway) last(t *testing.T) *http.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.seen) == 0 {
		t.Fatal("the gateway was not called")
	}
	return g.seen[len(g.seen)-1]
}

func TestPage(t *testing.T) {
	t.Parallel()
	b := startTest(t, newFakeGateway(t).URL)
	page := "http://" + b.addr(productpageName)
	tests := map[string]struct {
		path    string
		headers []string
		want    []string
		wantNot []string
	}{
		"first book": {
			path: "/productpage", want: []string{"The Tempest", "answered by reviews v1", "Opened past the gateway", "new EventSource"},
			wantNot: []string{"★", "<b>Reader</b>"},
		},
		"another book":           {path: "/productpage/1", want: []string{"Moby-Dick", "Herman Melville"}},
		"signed in by cookie":    {path: "/productpage", headers: []string{"Cookie", "user=jason"}, want: []string{"★★★★☆", `class="stars black"`, `id="user">jason<`}},
		"signed in by header":    {path: "/productpage", headers: []string{"X-User", "jason"}, want: []string{"answered by reviews v2"}},
		"pinned by cookie":       {path: "/productpage", headers: []string{"Cookie", "a=b; reviews=v3"}, want: []string{"★★☆☆☆", `class="stars red"`, "Pinned to v3"}},
		"through the gateway":    {path: "/productpage", headers: []string{"X-Bookinfo-Edge", "gatehouse"}, want: []string{"Let in by gatehouse"}},
		"reviews fail":           {path: "/productpage/2", want: []string{"Middlemarch", "Reviews are not available through the gateway", "503 Service Unavailable"}},
		"details fail":           {path: "/productpage/77", want: []string{"Details are not available", "404 Not Found", "answered by reviews v1"}},
		"hostile user is quoted": {path: "/productpage", headers: []string{"X-User", `<script>alert(1)</script>`}, wantNot: []string{"<script>alert"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := do(t, "GET", page+tt.path, nil, tt.headers...)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
			}
			for _, want := range tt.want {
				if !strings.Contains(body, want) {
					t.Errorf("%q is not in the page:\n%s", want, body)
				}
			}
			for _, not := range tt.wantNot {
				if strings.Contains(body, not) {
					t.Errorf("%q is in the page", not)
				}
			}
		})
	}
}

func TestPageWithoutGateway(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.NotFoundHandler())
	gateway.Close()
	b := startTest(t, gateway.URL)
	resp, body := do(t, "GET", "http://"+b.addr(productpageName)+"/productpage", nil)
	if resp.StatusCode != 200 || !strings.Contains(body, "Reviews are not available through the gateway: no connection to 127.0.0.1:") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestPageHandsOnContext(t *testing.T) {
	t.Parallel()
	gateway := newFakeGateway(t)
	b := startTest(t, gateway.URL)
	handedOn := map[string]string{
		"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tracestate": "a=b", "B3": "1-2-1",
		"X-B3-Traceid": "80f198ee56343ba864fe8b2a57d3eff7", "X-Request-Id": "r-1", "Cookie": "user=jason; reviews=v3",
	}
	var headers []string
	for name, value := range handedOn {
		headers = append(headers, name, value)
	}
	do(t, "GET", "http://"+b.addr(productpageName)+"/productpage", nil, append(headers, "X-Other", "1")...)
	got := gateway.last(t)
	if got.Host != "reviews.bookinfo.example.com" {
		t.Errorf("host %q", got.Host)
	}
	handedOn["X-User"] = "jason"
	for name, want := range handedOn {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	if got.Header.Get("X-Other") != "" {
		t.Error("a header that is none of the page's business was handed on")
	}
}

func TestSignInAndPin(t *testing.T) {
	t.Parallel()
	b := startTest(t, newFakeGateway(t).URL)
	tests := map[string]struct {
		path, form string
		want       int
		wantCookie string
	}{
		"sign in":         {"sign-in", "user=jason", 303, "user=jason; Path=/; HttpOnly; SameSite=Lax"},
		"sign out":        {"sign-in", "", 303, "user=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"},
		"pin":             {"pin", "version=v3", 303, "reviews=v3; Path=/; HttpOnly; SameSite=Lax"},
		"long name":       {"sign-in", "user=" + strings.Repeat("x", 65), 400, ""},
		"name with break": {"sign-in", "user=a%0d%0ab", 400, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := do(t, "POST", "http://"+b.addr(productpageName)+"/productpage/"+tt.path, strings.NewReader(tt.form),
				"Content-Type", "application/x-www-form-urlencoded")
			if resp.StatusCode != tt.want || resp.Header.Get("Set-Cookie") != tt.wantCookie {
				t.Errorf("%d, cookie %q, %s, want %d, %q", resp.StatusCode, resp.Header.Get("Set-Cookie"), body, tt.want, tt.wantCookie)
			}
		})
	}
}

func TestEventsFollowTheTally(t *testing.T) {
	t.Parallel()
	b := startTest(t, newFakeGateway(t).URL)
	page := "http://" + b.addr(productpageName)
	events := openEvents(t, page)
	// until waits for a state: one change may be told twice, and several at once.
	until := func(reached func(tallyState) bool) tallyState {
		for {
			if s := events(); reached(s) {
				return s
			}
		}
	}
	if first := events(); first.Total != 0 {
		t.Fatalf("first event %+v, want nothing counted", first)
	}
	resp, body := do(t, "POST", page+"/productpage/sample", strings.NewReader("n=50"), "Content-Type", "application/x-www-form-urlencoded")
	if resp.StatusCode != 200 || !strings.Contains(body, `"failed": 0`) || !strings.Contains(body, `"sent": 50`) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	got := until(func(s tallyState) bool { return s.Total >= 50 })
	if got.Total != 50 || got.Versions["v1"] != 50 || got.Failed != 0 || got.Last != "v1" {
		t.Errorf("got %+v, want 50 of v1", got)
	}
	do(t, "GET", page+"/productpage/2", nil)
	if got = until(func(s tallyState) bool { return s.Total > 50 }); got.Failed != 1 || got.Total != 51 {
		t.Errorf("got %+v, want one failure", got)
	}
	do(t, "POST", page+"/productpage/reset", nil)
	if got = until(func(s tallyState) bool { return s.Total != 51 }); got.Total != 0 || len(got.Versions) != 0 {
		t.Errorf("got %+v after a reset", got)
	}
}

// openEvents connects to the event stream and returns a function that waits for the next event.
func openEvents(t *testing.T, page string) func() tallyState {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", page+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := testClient(t)
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("%s %s", resp.Status, got)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() (s tallyState) {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &s); err != nil {
					t.Fatal(err)
				}
				return s
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return s
	}
}

func TestSampleBounds(t *testing.T) {
	t.Parallel()
	b := startTest(t, newFakeGateway(t).URL)
	for _, n := range []string{"0", "-1", "1001", "many", ""} {
		resp, body := do(t, "POST", "http://"+b.addr(productpageName)+"/productpage/sample", strings.NewReader("n="+n),
			"Content-Type", "application/x-www-form-urlencoded")
		if resp.StatusCode != 400 || !strings.Contains(body, "1 to 1000") {
			t.Errorf("n=%q: %d %s", n, resp.StatusCode, body)
		}
	}
}

func TestStopEndsEventStreams(t *testing.T) {
	t.Parallel()
	b, err := start(testSettings("http://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	next := openEvents(t, "http://"+b.addr(productpageName))
	next()
	if err := b.stop(); err != nil {
		t.Fatalf("stop with an open event stream: %v", err)
	}
}
