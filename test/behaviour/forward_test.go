package behaviour

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/test/harness"
)

// echoHead answers with what the origin saw.
func echoHead(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Seen-Host", r.Host)
	w.Header().Set("X-Seen-Target", r.RequestURI)
	w.Header().Set("X-Seen-Method", r.Method)
	for name, values := range r.Header {
		for _, v := range values {
			w.Header().Add("Seen-"+name, v)
		}
	}
}

func TestHostIsForwardedAsReceived(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, echoHead)
		for _, host := range []string{"app.example.test", "App.Example.TEST", "app.example.test:8443", "127.0.0.1", "[::1]:80"} {
			r := harness.MustDo(t, env.Client, harness.Request{Authority: host})
			if c.Down.TLS() && r.Status == 421 {
				t.Errorf("%s: got 421 from a listener for every host", host)
				continue
			}
			if got := r.Fields.Get("X-Seen-Host"); r.Status != 200 || got != host {
				t.Errorf("%s: got %d, the origin saw host %q", host, r.Status, got)
			}
		}
	})
}

func TestForwardingFields(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, echoHead)
		r := harness.MustDo(t, env.Client, harness.Request{Authority: "app.example.test:8443"})
		for name, want := range map[string]string{
			"Seen-X-Forwarded-For": "127.0.0.1", "Seen-X-Forwarded-Proto": c.Down.Scheme(), "Seen-X-Forwarded-Host": "app.example.test:8443",
		} {
			if got := r.Fields.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if got := r.Fields.Get("Seen-X-Request-Id"); got == "" {
			t.Error("the origin got no X-Request-Id")
		}
	})
}

// What an untrusted client says about itself never reaches the origin, however it is spelled.
func TestSpoofedFieldsAreRemoved(t *testing.T) {
	names := []string{
		"X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR", "X_Forwarded_For", "x_forwarded-for", "X.Forwarded.For", "X-Forwarded-Proto",
		"X_Forwarded_Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-User",
		"X-Forwarded-Client-Cert", "X_Forwarded_Client_Cert", "X-Forwarded-Anything", "Forwarded", "FORWARDED", "X-Real-Ip", "X_Real_IP",
		"X-Real.IP", "X-Envoy-External-Address", "x-envoy-original-path", "X_Envoy_Internal", "X-Request-Id", "X_Request_ID",
	}
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			for name, values := range r.Header {
				for _, v := range values {
					if strings.Contains(v, "6.6.6.6") {
						fmt.Fprintf(w, "%s: %s\n", name, v)
					}
				}
			}
		})
		for _, name := range names {
			for how, fields := range map[string]harness.Fields{
				"alone":               harness.F(name, "6.6.6.6"),
				"twice":               harness.F(name, "6.6.6.6", "X-Between", "1", name, "6.6.6.6, 6.6.6.6"),
				"named in Connection": harness.F("Connection", name, name, "6.6.6.6"),
			} {
				if how == "named in Connection" && !c.Down.IsH1() {
					continue // HTTP/2 and HTTP/3 have no Connection
				}
				r, err := harness.Do(env.Client, harness.Request{Fields: fields})
				if err == nil && r.Status == 400 {
					continue // refused is as good
				}
				if err != nil || r.Status != 200 || len(r.Body) > 0 {
					t.Errorf("%s %s: got %+v, %v", name, how, r, err)
				}
			}
		}
		// Naming the gateway's own fields in Connection must not take them away from the origin.
		if c.Down.IsH1() {
			env := harness.New(t, c, echoHead)
			r := harness.MustDo(t, env.Client, harness.Request{Fields: harness.F("Connection", "X-Forwarded-For, X-Forwarded-Proto, Host")})
			if r.Fields.Get("Seen-X-Forwarded-For") == "" || r.Fields.Get("Seen-X-Forwarded-Proto") == "" || r.Fields.Get("X-Seen-Host") == "" {
				t.Errorf("Connection took forwarding fields away: %v", r.Fields)
			}
		}
	})
}

func TestHopByHopFieldsAreRemoved(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			echoHead(w, r)
			if c.Up == harness.UpH1 {
				w.Header().Set("Connection", "X-Hop-Response")
				w.Header().Set("Keep-Alive", "timeout=5")
				w.Header().Set("Proxy-Connection", "keep-alive")
			}
			w.Header().Set("X-Hop-Response", "1")
			w.Header().Set("Alt-Svc", `h3=":1"`)
			w.Header().Set("X-End-Response", "1")
		})
		fields := harness.F("X-End", "1", "Proxy-Authorization", "Basic eA==", "TE", "trailers")
		if c.Down.IsH1() {
			fields = append(fields, harness.F(
				"Connection", "X-Hop, keep-alive", "Connection", "close-not,\tX-Hop-Two ,TE", "X-Hop", "1", "x-hop-two", "1",
				"Keep-Alive", "timeout=5", "Proxy-Connection", "keep-alive",
			)...)
		}
		r := harness.MustDo(t, env.Client, harness.Request{Fields: fields})
		for _, name := range []string{"X-Hop", "X-Hop-Two", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Connection", "Upgrade", "Http2-Settings"} {
			if got := r.Fields.Values("Seen-" + name); len(got) > 0 {
				t.Errorf("request: %s reached the origin: %q", name, got)
			}
		}
		if r.Fields.Get("Seen-X-End") != "1" {
			t.Errorf("request: X-End did not reach the origin")
		}
		want := "trailers"
		if c.Up == harness.UpH1 {
			want = "" // HTTP/1.1 needs Connection for it, and carries trailers without
		}
		if got := r.Fields.Get("Seen-Te"); got != want {
			t.Errorf("request: te reached the origin as %q, want %q", got, want)
		}
		names := []string{"Keep-Alive", "Proxy-Connection"}
		if c.Up == harness.UpH1 {
			names = append(names, "X-Hop-Response")
		}
		for _, name := range names {
			if r.Fields.Has(name) {
				t.Errorf("response: %s reached the client: %q", name, r.Fields.Values(name))
			}
		}
		for _, v := range r.Fields.Values("Alt-Svc") {
			if strings.Contains(v, ":1\"") {
				t.Errorf("response: the origin's Alt-Svc reached the client: %q", v)
			}
		}
		if r.Fields.Get("X-End-Response") != "1" {
			t.Error("response: X-End-Response did not reach the client")
		}
	})
}

// Only "trailers" of TE means something beyond one hop.
func TestTE(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH2C}, echoHead)
		for value, want := range map[string]string{"trailers": "trailers", "": ""} {
			req := harness.Request{}
			if value != "" {
				req.Fields = harness.F("TE", value)
			}
			if r := harness.MustDo(t, env.Client, req); r.Fields.Get("Seen-Te") != want {
				t.Errorf("te %q reached the origin as %q, want %q", value, r.Fields.Get("Seen-Te"), want)
			}
		}
		if d.IsH1() { // HTTP/2 and HTTP/3 allow no other value
			r := harness.MustDo(t, env.Client, harness.Request{Fields: harness.F("TE", "gzip, trailers;q=0.5, deflate")})
			if got := r.Fields.Get("Seen-Te"); got != "" && got != "trailers" {
				t.Errorf("te reached the origin as %q", got)
			}
		}
	})
}

func TestTargetReachesUpstream(t *testing.T) {
	cases := map[string]string{ // "" is 400
		"/":                  "/",
		"/a/b":               "/a/b",
		"/a/b/":              "/a/b/",
		"/a/./b/../c":        "/a/c",
		"/a/%2e%2E/c":        "/c",
		"//a///b":            "/a/b",
		"/%7Euser/%41":       "/~user/A",
		"/a%2fb":             "/a%2Fb",
		"/a%5cb":             "/a%5Cb",
		"/a%252fb":           "/a%252fb",
		"/a;x=1/b":           "/a;x=1/b",
		"/caf%C3%A9":         "/caf%C3%A9",
		"/caf%c3%a9":         "/caf%C3%A9",
		"/a/..":              "/",
		"/a/.":               "/a/",
		"/.hidden":           "/.hidden",
		"/...":               "/...",
		"/a:b@c!$&'()*+,=":   "/a:b@c!$&'()*+,=",
		"/?":                 "/?",
		"/a?":                "/a?",
		"/a?x=1&y=2":         "/a?x=1&y=2",
		"/a?x;y;z":           "/a?x;y;z",
		"/a?%zz":             "/a?%zz",
		"/a?%2":              "/a?%2",
		"/a?a=//../..":       "/a?a=//../..",
		"/a?b??c":            "/a?b??c",
		"/a?x=%00":           "/a?x=%00",
		"/a?[]{}|^`'":        "/a?[]{}|^`'",
		"/a?+%20%2B":         "/a?+%20%2B",
		"/../a":              "",
		"/a/../../b":         "",
		"/..;/a":             "",
		"/.;x/a":             "",
		"/a/..;x=1/b":        "",
		"/%00":               "",
		"/a%c0%af":           "",
		"/%e0%80%af":         "",
		"/a\\b":              "",
		"/a/%2e%2e/%2e%2e/b": "",
		"/%zz":               "",
		"/%2":                "",
		"/%":                 "",
		"/a/%2e%2e%2fb":      "",
		"/%2e%2e%2f":         "",
		"/a//":               "/a/",
		"/a/b/%2e":           "/a/b/",
		"/a/b/%2e%2e":        "/a/",
		"/" + strings.Repeat("a/", 500) + "?" + strings.Repeat("x=1&", 10_000): "/" + strings.Repeat("a/", 500) + "?" + strings.Repeat("x=1&", 10_000),
	}
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
		for target, want := range cases {
			r, err := harness.Do(env.Client, harness.Request{Target: target})
			label := target
			if len(label) > 60 {
				label = label[:60] + "..."
			}
			switch {
			case want == "" && err != nil && !c.Down.IsH1(): // a stream error refuses it as well
			case err != nil:
				t.Errorf("%s: %v", label, err)
			case want == "" && r.Status != 400:
				t.Errorf("%s: got %d and the origin saw %q, want 400", label, r.Status, r.Body)
			case want != "" && (r.Status != 200 || string(r.Body) != want):
				t.Errorf("%s: got %d, the origin saw %.100q, want %.100q", label, r.Status, r.Body, want)
			}
		}
	})
}

func TestSpecialMethods(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method+" "+r.RequestURI) })
		r := harness.MustDo(t, env.Client, harness.Request{Method: "OPTIONS", Target: "*"})
		if r.Status != 200 || string(r.Body) != "OPTIONS *" {
			t.Errorf("OPTIONS *: got %d, the origin saw %q", r.Status, r.Body)
		}
		if r, err := harness.Do(env.Client, harness.Request{Method: "GET", Target: "*"}); err == nil && r.Status != 400 {
			t.Errorf("GET *: got %d %q, want 400", r.Status, r.Body)
		}
		if r := harness.MustDo(t, env.Client, harness.Request{Method: "TRACE"}); r.Status != 405 {
			t.Errorf("TRACE: got %d %q, want 405", r.Status, r.Body)
		}
		for _, body := range [][]byte{nil, []byte("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")} {
			r, err := harness.Do(env.Client, harness.Request{Method: "CONNECT", Target: "app.example.test:443", Authority: "app.example.test:443", Body: body})
			if err == nil && r.Status != 405 && r.Status != 400 {
				t.Errorf("CONNECT with %d bytes: got %d %q, want 405", len(body), r.Status, r.Body)
			}
		}
		for range 3 { // no pooled connection was poisoned
			if r := harness.MustDo(t, env.NewClient(t), harness.Request{Target: "/after"}); string(r.Body) != "GET /after" {
				t.Errorf("after CONNECT: got %d %q", r.Status, r.Body)
			}
		}
	})
}

func TestExpectationFailed(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, teapot)
		for _, value := range []string{"200-ok", "100-continue, x", "nonsense"} {
			if value == "100-continue, x" && (c.Down == harness.H2 || c.Down == harness.H2C) {
				continue // net/http's HTTP/2 server takes the field away when one of its members is 100-continue
			}
			if r := harness.MustDo(t, env.NewClient(t), harness.Request{Fields: harness.F("Expect", value)}); r.Status != 417 {
				t.Errorf("Expect: %s: got %d, want 417", value, r.Status)
			}
		}
	})
}
