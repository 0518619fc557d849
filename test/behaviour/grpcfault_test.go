package behaviour

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/routing"
	"gatehouse.dev/gatehouse/test/harness"
)

// replying is a filter that answers by itself.
type replying struct{ status int }

func (r replying) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	x.Resp.Status = r.status
	x.Resp.Fields.Add("Content-Type", "text/plain")
	x.Resp.Fields.Add("X-Why", "because")
	x.RespBody = exchange.Bytes([]byte("not now: 50%\n"))
	return filters.Reply, nil
}

func (replying) OnResponse(*exchange.Exchange) {}

// TestGRPCFaults: what the gateway answers by itself is trailers-only to a gRPC client over HTTP/2 and HTTP/3, and as ever to everybody else.
func TestGRPCFaults(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		broken := harness.NewOrigin(t, harness.UpH1, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }).Cluster("broken")
		closed, silent := harness.Cluster("closed", harness.UpH1, harness.ClosedAddress(t)), harness.Cluster("silent", harness.UpH1)
		stuck := make(chan struct{})
		defer close(stuck)
		slow := harness.NewOrigin(t, harness.UpH1, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-stuck:
			case <-r.Context().Done():
			}
		}).Cluster("slow")
		spec := filters.Spec{
			Kind: "Reply", Validate: func([]byte) error { return nil },
			Build: func([]byte, *filters.Builder) (filters.Filter, error) { return replying{429}, nil },
		}
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, teapot, withFilters(spec, extauthz.Spec()))
		at := func(path string, backends []config.Backend, change func(*config.Rule)) *config.Rule {
			r := &config.Rule{Name: path, Matches: []routing.Match{{Path: path}}, Backends: backends}
			if change != nil {
				change(r)
			}
			return r
		}
		env.Gateway.Apply(harness.Config([]*config.Listener{harness.Listener(d, env.Port, harness.Route("r",
			at("/invalid", []config.Backend{{Invalid: "BackendNotFound", Weight: 1}}, nil),
			at("/none", nil, nil),
			at("/broken", harness.To(broken), nil),
			at("/closed", harness.To(closed), nil),
			at("/silent", harness.To(silent), nil),
			at("/slow", harness.To(slow), func(r *config.Rule) { r.RequestTimeout = 50 * time.Millisecond }),
			at("/reply", harness.To(broken), func(r *config.Rule) { r.Filters = []config.Policy{{Kind: "Reply"}} }),
			at("/auth", harness.To(broken), func(r *config.Rule) {
				r.Filters = []config.Policy{authPolicy(extauthz.Config{Protocol: extauthz.GRPC, Invalid: "BackendNotFound"})}
			}),
			at("/origin", harness.To(env.Origin.Cluster("origin")), nil),
		))}, broken, closed, env.Origin.Cluster("origin"), silent, slow))

		tests := map[string]struct {
			status  int
			code    string
			message string
		}{
			"/other":   {404, "12", "no_route"},
			"/invalid": {500, "14", "invalid_backend"},
			"/none":    {500, "14", "no_backends"},
			"/broken":  {502, "14", "upstream_reset"},
			"/closed":  {503, "14", "upstream_connect"},
			"/silent":  {503, "14", "no_endpoints"},
			"/slow":    {504, "4", "request_timeout"},
			"/reply":   {429, "14", "not now: 50%25"},
			"/auth":    {403, "7", "auth_failed"},
		}
		for path, tt := range tests {
			for _, kind := range []string{"application/grpc", "application/grpc+proto", "Application/gRPC;x=y", "application/grpc-web", "text/plain"} {
				r := harness.MustDo(t, env.Client, harness.Request{Method: "POST", Target: path, Fields: harness.F("content-type", kind, "te", "trailers"),
					Body: []byte("\x00\x00\x00\x00\x00")})
				isGRPC := !d.IsH1() && strings.HasPrefix(strings.ToLower(kind), "application/grpc") && kind != "application/grpc-web"
				switch {
				case !isGRPC:
					if r.Status != tt.status || r.Fields.Has("grpc-status") || r.Trailers.Has("grpc-status") {
						t.Errorf("%s, %s: got %d %v", path, kind, r.Status, r.Fields)
					}
				case r.Status != 200 || r.Fields.Get("grpc-status") != tt.code || r.Fields.Get("grpc-message") != tt.message ||
					len(r.Fields.Values("content-type")) != 1 || r.Fields.Get("content-type") != "application/grpc" || r.Fields.Has("content-length") ||
					len(r.Body) != 0 || len(r.Trailers) != 0:
					t.Errorf("%s, %s: got %d %v %q", path, kind, r.Status, r.Fields, r.Body)
				}
				if path == "/reply" && r.Fields.Get("x-why") != "because" {
					t.Errorf("%s, %s: the filter's own field is gone: %v", path, kind, r.Fields)
				}
			}
		}
		// What a backend answers is its own.
		r := harness.MustDo(t, env.Client, harness.Request{Method: "POST", Target: "/origin", Fields: harness.F("content-type", "application/grpc")})
		if r.Status != 418 || r.Fields.Has("grpc-status") {
			t.Errorf("a backend's answer: got %d %v", r.Status, r.Fields)
		}
	})
}

// TestGRPCBreak: a stream that breaks off ends with a status in its trailers, in place of a reset without one.
func TestGRPCBreak(t *testing.T) {
	for _, down := range []harness.Down{harness.H2, harness.H2C, harness.H3} {
		for _, up := range harness.Ups() {
			c := harness.Combo{Down: down, Up: up}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
					io.WriteString(w, "begun")
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				})
				r, err := harness.Do(env.Client, harness.Request{Method: "POST", Fields: harness.F("content-type", "application/grpc")})
				if err != nil || r.Err != nil || string(r.Body) != "begun" {
					t.Fatalf("got %+v, %v", r, err)
				}
				want := "13" // RST_STREAM with INTERNAL_ERROR
				if up == harness.UpH1 {
					want = "14"
				}
				if got := r.Trailers.Get("grpc-status"); got != want || r.Trailers.Get("grpc-message") != "upstream_reset" {
					t.Errorf("got trailers %v, want grpc-status %s", r.Trailers, want)
				}
				if r, err := harness.Do(env.NewClient(t), harness.Request{Fields: harness.F("content-type", "text/plain")}); err == nil && r.Err == nil {
					t.Errorf("what is no gRPC ended as if it were whole: %+v", r)
				}
			})
		}
	}
}
