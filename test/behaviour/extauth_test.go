package behaviour

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/routing"
	"gatehouse.dev/gatehouse/test/harness"
)

// authPolicy is the filter as the configuration carries it.
func authPolicy(c extauthz.Config) config.Policy {
	return config.Policy{Kind: extauthz.Kind, Payload: filters.Encode(c)}
}

func withFilters(specs ...filters.Spec) func(*harness.EnvOptions) {
	return func(o *harness.EnvOptions) { o.Filters = append(o.Filters, specs...) }
}

// checker is an authorization server that speaks HTTP: paths below /deny and /login are refused in their own ways.
func checker(seen *box[string]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen.set(fmt.Sprintf("%s %s %s auth=%s one=%s two=%s length=%d body=%d", r.Method, r.Host, r.URL.RequestURI(), r.Header.Get("Authorization"),
			r.Header.Get("X-One"), r.Header.Get("X-Two"), r.ContentLength, len(body)))
		switch {
		case strings.HasPrefix(r.URL.Path, "/check/deny"):
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(401)
			io.WriteString(w, "who are you?")
		case strings.HasPrefix(r.URL.Path, "/check/login"):
			w.Header().Set("Location", "https://login.example/")
			w.WriteHeader(302)
		case strings.HasPrefix(r.URL.Path, "/check/broken"):
			w.WriteHeader(500)
		default:
			w.Header().Set("X-User", "alice")
			w.Header().Set("X-Not-Listed", "1")
		}
	}
}

// echoUser tells what the backend got.
func echoUser(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s user=%q folded=%q unlisted=%q body=%d", r.URL.RequestURI(), r.Header.Values("X-User"), r.Header.Values("X_User"),
		r.Header.Values("X-Not-Listed"), len(body))
}

func TestExternalAuthHTTP(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		var seen box[string]
		auth := harness.NewOrigin(t, c.Up, checker(&seen))
		env := harness.New(t, c, echoUser, clusters(auth.Cluster("auth")), withFilters(extauthz.Spec()), rule(func(r *config.Rule) {
			r.Filters = []config.Policy{authPolicy(extauthz.Config{Protocol: extauthz.HTTP, Cluster: auth.Cluster("auth").Name, Path: "/check",
				AllowedHeaders: []string{"X-One"}, AllowedResponseHeaders: []string{"X-User"}, MaxBody: 100_000})}
		}))
		host := harness.DefaultHost
		fields := harness.F("authorization", "Bearer t", "x-one", "1", "x-two", "2", "x-user", "mallory", "x_user", "mallory")
		r := harness.MustDo(t, env.Client, harness.Request{Target: "/a/%2e./b%41?q=1", Fields: fields})
		if want := `/bA?q=1 user=["alice"] folded=[] unlisted=[] body=0`; r.Status != 200 || string(r.Body) != want {
			t.Errorf("got %d %s, want %s", r.Status, r.Body, want)
		}
		if got, want := seen.get(), "GET "+host+" /check/bA?q=1 auth=Bearer t one=1 two= length=0 body=0"; got != want {
			t.Errorf("the authorization server got %q, want %q", got, want)
		}
		for _, size := range []int{1, 70_000, 100_000} {
			r := harness.MustDo(t, env.Client, harness.Request{Method: "POST", Target: "/b", Body: pattern(size), Unsized: size == 70_000})
			if want := fmt.Sprintf(`/b user=["alice"] folded=[] unlisted=[] body=%d`, size); string(r.Body) != want {
				t.Errorf("%d bytes: got %d %s", size, r.Status, r.Body)
			}
			if got := seen.get(); !strings.HasSuffix(got, fmt.Sprintf("length=%d body=%d", size, size)) {
				t.Errorf("%d bytes: the authorization server got %s", size, got)
			}
		}
		if r := harness.MustDo(t, env.Client, harness.Request{Method: "POST", Body: pattern(100_001)}); r.Status != 413 {
			t.Errorf("a body that is too long: got %d", r.Status)
		}
		if r := harness.MustDo(t, env.NewClient(t), harness.Request{Target: "/deny"}); r.Status != 401 || string(r.Body) != "who are you?" ||
			r.Fields.Get("www-authenticate") != "Bearer" {
			t.Errorf("denied: got %d %q %v", r.Status, r.Body, r.Fields)
		}
		if r := harness.MustDo(t, env.NewClient(t), harness.Request{Target: "/login"}); r.Status != 302 || r.Fields.Get("location") != "https://login.example/" {
			t.Errorf("sent to log in: got %d %v", r.Status, r.Fields)
		}
		if r := harness.MustDo(t, env.NewClient(t), harness.Request{Method: "POST", Target: "/broken", Body: []byte("b")}); r.Status != 403 ||
			string(r.Body) != "403 auth_failed\n" {
			t.Errorf("a server that failed: got %d %q", r.Status, r.Body)
		}
	})
}

// TestExternalAuthFailsClosed: no server, none that answers, none that is there.
func TestExternalAuthFailsClosed(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		closed, silent := harness.Cluster("closed", harness.UpH1, harness.ClosedAddress(t)), harness.Cluster("silent", harness.UpH2C)
		teapotOrigin := harness.NewOrigin(t, harness.UpH2C, teapot)
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, teapot, clusters(closed, silent), withFilters(extauthz.Spec()))
		rules := func(configs map[string]extauthz.Config) (list []*config.Rule) {
			for path, c := range configs {
				list = append(list, &config.Rule{Name: path, Matches: []routing.Match{{Path: path}}, Filters: []config.Policy{authPolicy(c)},
					Backends: harness.To(env.Origin.Cluster("origin"))})
			}
			return list
		}
		configs := map[string]extauthz.Config{
			"/closed":   {Protocol: extauthz.HTTP, Cluster: closed.Name},
			"/silent":   {Protocol: extauthz.GRPC, Cluster: silent.Name},
			"/invalid":  {Protocol: extauthz.HTTP, Invalid: "BackendNotFound"},
			"/not-grpc": {Protocol: extauthz.GRPC, Cluster: "Service/test/teapot/80"},
		}
		apply := func() error {
			return env.Gateway.TryApply(harness.Config([]*config.Listener{harness.Listener(d, env.Port, harness.Route("r", rules(configs)...))},
				closed, env.Origin.Cluster("origin"), silent, teapotOrigin.Cluster("teapot")))
		}
		if err := apply(); err != nil {
			t.Fatal(err)
		}
		for path := range configs {
			if r := harness.MustDo(t, env.Client, harness.Request{Target: path}); r.Status != 403 || string(r.Body) != "403 auth_failed\n" {
				t.Errorf("%s: got %d %q", path, r.Status, r.Body)
			}
		}
		configs["/unknown"] = extauthz.Config{Protocol: extauthz.HTTP, Cluster: "Service/test/nowhere/80"}
		if err := apply(); err == nil || !strings.Contains(err.Error(), "there is no cluster Service/test/nowhere/80") {
			t.Errorf("a cluster that is not there: %v", err)
		}
	})
}

// grpcChecker is an authorization server that speaks Envoy's protocol.
type grpcChecker struct {
	authv3.UnimplementedAuthorizationServer
	seen box[string]
}

func headerOption(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
}

func (g *grpcChecker) Check(_ context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	r := in.GetAttributes().GetRequest().GetHttp()
	g.seen.set(fmt.Sprintf("%s %s %s one=%s body=%d", r.GetMethod(), r.GetHost(), r.GetPath(), r.GetHeaders()["x-one"], max(len(r.GetBody()), len(r.GetRawBody()))))
	switch {
	case strings.HasPrefix(r.GetPath(), "/fail"):
		return nil, status.Error(codes.Internal, "out of order")
	case strings.HasPrefix(r.GetPath(), "/deny"):
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}, Body: "who are you?",
				Headers: []*corev3.HeaderValueOption{headerOption("x-why", "because")}},
		}}, nil
	case strings.HasPrefix(r.GetPath(), "/plain"):
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}}, nil
	}
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{headerOption("x-user", "alice"), headerOption(":path", "/evil"), headerOption("host", "evil")}, HeadersToRemove: []string{"x-one"},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{headerOption("x-seen", "1")},
	}}}, nil
}

// newGRPCChecker starts the server and returns the cluster that leads to it.
func newGRPCChecker(t *testing.T, up harness.Up) (*grpcChecker, *config.Cluster) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opts []grpc.ServerOption
	if up == harness.UpH2TLS {
		opts = append(opts, grpc.Creds(credentials.NewTLS(harness.OriginTLS())))
	}
	server, check := grpc.NewServer(opts...), &grpcChecker{}
	authv3.RegisterAuthorizationServer(server, check)
	go server.Serve(ln)
	t.Cleanup(server.Stop)
	return check, harness.Cluster("auth", up, netip.MustParseAddrPort(ln.Addr().String()))
}

func TestExternalAuthGRPC(t *testing.T) {
	for _, up := range []harness.Up{harness.UpH2C, harness.UpH2TLS} {
		harness.EachDown(t, func(t *testing.T, d harness.Down) {
			check, auth := newGRPCChecker(t, up)
			env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, echoUser, clusters(auth), withFilters(extauthz.Spec()), rule(func(r *config.Rule) {
				r.Filters = []config.Policy{authPolicy(extauthz.Config{Protocol: extauthz.GRPC, Cluster: auth.Name, MaxBody: 100_000})}
			}))
			fields := harness.F("x-one", "1", "x-user", "mallory", "x_user", "mallory")
			r := harness.MustDo(t, env.Client, harness.Request{Method: "POST", Target: "/a/../b?q", Fields: fields, Body: pattern(70_000)})
			if want := `/b?q user=["alice"] folded=[] unlisted=[] body=70000`; r.Status != 200 || string(r.Body) != want || r.Fields.Get("x-seen") != "1" {
				t.Errorf("got %d %s %v, want %s", r.Status, r.Body, r.Fields, want)
			}
			if got, want := check.seen.get(), "POST "+harness.DefaultHost+" /b?q one=1 body=70000"; got != want {
				t.Errorf("the authorization server got %q, want %q", got, want)
			}
			for path, want := range map[string]string{"/deny": "401 because who are you?", "/plain": "403  ", "/fail": "403  403 auth_failed\n"} {
				r := harness.MustDo(t, env.Client, harness.Request{Target: path})
				if got := fmt.Sprintf("%d %s %s", r.Status, r.Fields.Get("x-why"), r.Body); got != want {
					t.Errorf("%s: got %q, want %q", path, got, want)
				}
			}
			if r := harness.MustDo(t, env.Client, harness.Request{Method: "POST", Body: pattern(100_001)}); r.Status != 413 {
				t.Errorf("a body that is too long: got %d", r.Status)
			}
		})
	}
}

// detour is a listener filter that changes whatever a filter may and may not.
type detour struct{}

func (detour) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	if to, ok := x.Req.Fields.Lookup("x-detour"); ok {
		x.Req.SetPath(to)
		x.Req.Fields.Set("x-team", "red")
	}
	x.Req.Authority = "other.example.test"
	x.Req.Fields.Add("Host", "other.example.test")
	return filters.Continue, nil
}

func (detour) OnResponse(x *exchange.Exchange) { x.Resp.Fields.Set("x-listener", "passed") }

// TestListenerFilters: they run once, before a route is chosen, which sees what they changed, but never the host.
func TestListenerFilters(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		var seen box[string]
		auth := harness.NewOrigin(t, harness.UpH1, checker(&seen)).Cluster("auth")
		spec := filters.Spec{
			Kind: "Detour", Phase: filters.PhaseRewrite, Validate: func([]byte) error { return nil },
			Build: func([]byte, *filters.Builder) (filters.Filter, error) { return detour{}, nil },
		}
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", r.Host, r.Header.Get("X-Rule"))
		}, withFilters(extauthz.Spec(), spec), clusters(auth))
		to := harness.To(env.Origin.Cluster("origin"))
		red := &config.Rule{Name: "red", Backends: to, Matches: []routing.Match{{Path: "/new", Headers: []routing.ValueMatch{{Name: "x-team", Value: "red"}}}}}
		user := &config.Rule{Name: "user", Backends: to, Matches: []routing.Match{{Headers: []routing.ValueMatch{{Name: "x-user", Value: "alice"}}}}}
		l := harness.Listener(d, env.Port, harness.Route("r", red, user))
		// The list's order counts, not the phases': the question is about the path behind the detour.
		l.Filters = []config.Policy{{Kind: "Detour"}, authPolicy(extauthz.Config{Protocol: extauthz.HTTP, Cluster: auth.Name, Path: "/check",
			AllowedResponseHeaders: []string{"x-user"}})}
		env.Gateway.Apply(harness.Config([]*config.Listener{l}, auth, env.Origin.Cluster("origin")))
		for name, tt := range map[string]struct {
			target string
			fields harness.Fields
			want   int
			asked  string
		}{
			"a header that the server set": {"/old", harness.F("x-user", "mallory"), 200, "/check/old"},
			"a path that a filter set":     {"/old", harness.F("x-detour", "/new"), 200, "/check/new"},
			"a refusal":                    {"/deny", nil, 401, "/check/deny"},
		} {
			r := harness.MustDo(t, env.Client, harness.Request{Target: tt.target, Fields: tt.fields})
			if r.Status != tt.want || r.Fields.Get("x-listener") != "passed" {
				t.Errorf("%s: got %d %v", name, r.Status, r.Fields)
			}
			if r.Status == 200 && !strings.HasPrefix(string(r.Body), harness.DefaultHost) {
				t.Errorf("%s: the backend was asked for %q", name, r.Body)
			}
			if got := seen.get(); !strings.HasPrefix(got, "GET "+harness.DefaultHost+" "+tt.asked+" ") {
				t.Errorf("%s: the authorization server got %q", name, got)
			}
		}
	})
}

// TestExternalAuthBeforeBody: without forwardBody the decision needs nothing of the body, which goes to the backend as it comes.
func TestExternalAuthBeforeBody(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		var seen box[string]
		asked := make(chan struct{}, 4)
		check := checker(&seen)
		auth := harness.NewOrigin(t, c.Up, func(w http.ResponseWriter, r *http.Request) {
			check(w, r)
			asked <- struct{}{}
		}).Cluster("auth")
		env := harness.New(t, c, echoUser, clusters(auth), withFilters(extauthz.Spec()), rule(func(r *config.Rule) {
			r.Filters = []config.Policy{authPolicy(extauthz.Config{Protocol: extauthz.HTTP, Cluster: auth.Name, Path: "/check"})}
		}))
		s := harness.MustOpen(t, env.Client, harness.Request{Method: "POST", Target: "/a", Streaming: true, Length: -1})
		wait(t, "the authorization server being asked", asked)
		if got := seen.get(); !strings.HasSuffix(got, "length=0 body=0") {
			t.Errorf("the authorization server got %s", got)
		}
		harness.MustWrite(t, s, "late body")
		if err := s.CloseWrite(nil); err != nil {
			t.Fatal(err)
		}
		r, err := harness.Finish(s)
		if want := `/a user=["alice"] folded=[] unlisted=["1"] body=9`; err != nil || r.Status != 200 || string(r.Body) != want {
			t.Errorf("got %+v, %v, want %s", r, err, want)
		}
		denied := harness.MustOpen(t, env.NewClient(t), harness.Request{Method: "POST", Target: "/deny", Streaming: true, Length: -1})
		if r := harness.MustFinal(t, denied, 401); r.Fields.Get("www-authenticate") != "Bearer" {
			t.Errorf("denied: got %v", r.Fields)
		}
	})
}
