package extauthz

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net/url"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/filtertest"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// server is an exchange.Caller that answers by a function.
type server func(*exchange.Call) *exchange.Fault

func (s server) Call(c *exchange.Call) *exchange.Fault { return s(c) }

func answers(status int, body string, fields ...string) server {
	return func(c *exchange.Call) *exchange.Fault {
		c.Answer = exchange.Response{Status: status, Fields: filtertest.Fields(fields...)}
		c.AnswerBody = []byte(body)
		return nil
	}
}

// run asks about one request.
func run(t *testing.T, c Config, s exchange.Caller, x *exchange.Exchange) (filters.Action, error) {
	t.Helper()
	f := filtertest.Build(t, Spec(), c)
	x.Caller = s
	action, err := f.OnRequest(t.Context(), x)
	if err == nil {
		f.OnResponse(x)
	}
	return action, err
}

func wantFault(t *testing.T, err error, kind exchange.Kind) {
	t.Helper()
	if fault, ok := errors.AsType[*exchange.Fault](err); !ok || fault.Kind != kind {
		t.Errorf("err = %v, want a fault of kind %s", err, kind)
	}
}

// TestHTTPQuestion: what the server gets.
func TestHTTPQuestion(t *testing.T) {
	tests := map[string]struct {
		config Config
		method string
		url    string
		want   string
	}{
		"nothing allowed": {Config{}, "GET", "http://a.example/x/%41/../b?q=%zz", "GET a.example /x/b?q=%zz\nAuthorization: Bearer t\n"},
		"prefix":          {Config{Path: "/check/"}, "POST", "http://a.example:81/x", "POST a.example:81 /check/x\nAuthorization: Bearer t\n"},
		"allowed": {Config{AllowedHeaders: []string{"x-ONE", "content-length", "connection", "host"}}, "GET", "http://a/",
			"GET a /\nAuthorization: Bearer t\nX-One: 1\n"},
		"asterisk":             {Config{}, "OPTIONS", "http://a*", "OPTIONS a *\nAuthorization: Bearer t\n"},
		"asterisk with prefix": {Config{Path: "p"}, "OPTIONS", "http://a*", "OPTIONS a /p\nAuthorization: Bearer t\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := filtertest.Exchange(t, tt.method, tt.url, 80, "Authorization", "Bearer t", "X-One", "1", "X-Two", "2", "Host", "other",
				"Content-Length", "7", "Connection", "close")
			tt.config.Protocol, tt.config.Cluster = HTTP, "c"
			got := ""
			action, err := run(t, tt.config, server(func(c *exchange.Call) *exchange.Fault {
				got = c.Head.Method + " " + c.Head.Authority + " " + c.Head.ForwardTarget() + "\n" + filtertest.Lines(c.Head.Fields)
				if c.Cluster != "c" || len(c.Body) != 0 {
					t.Errorf("asked %s with %q", c.Cluster, c.Body)
				}
				return answers(200, "")(c)
			}), x)
			if err != nil || action != filters.Continue {
				t.Fatalf("%v, %v", action, err)
			}
			if got != tt.want {
				t.Errorf("the server got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

// TestHTTPAllowed: what the backend gets when the server says 200.
func TestHTTPAllowed(t *testing.T) {
	answer := answers(200, "body", "X-User", "alice", "x-user", "second", "Content-Type", "text/html", "Host", "evil", "Connection", "x-user",
		"Transfer-Encoding", "chunked", "Date", "now", "X-Other", "o")
	tests := map[string]struct {
		returned []string
		want     string
	}{
		"named": {[]string{"X-User", "X-Group", "Host"}, "X-Other: client\nX-User: alice\nx-user: second\n"},
		"all":   {nil, "x.group: g\nX-User: alice\nx-user: second\nX-Other: o\n"},
		"a type": {[]string{"content-type"},
			"X_User: mallory\nx-user: mallory\nx.group: g\nX-Other: client\nContent-Type: text/html\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := filtertest.Exchange(t, "GET", "http://a/", 80, "X_User", "mallory", "x-user", "mallory", "x.group", "g", "X-Other", "client")
			action, err := run(t, Config{Protocol: HTTP, Cluster: "c", AllowedResponseHeaders: tt.returned}, answer, x)
			if err != nil || action != filters.Continue {
				t.Fatalf("%v, %v", action, err)
			}
			if got := filtertest.Lines(x.Req.Fields); got != tt.want {
				t.Errorf("the backend gets\n%swant\n%s", got, tt.want)
			}
			if x.Req.Authority != "a" {
				t.Errorf("authority %q", x.Req.Authority)
			}
		})
	}
}

// TestHTTPDenied: whatever is not 200 does not go on.
func TestHTTPDenied(t *testing.T) {
	for status, want := range map[int]int{201: 403, 204: 403, 302: 302, 400: 400, 401: 401, 403: 403, 404: 404, 429: 429, 499: 499} {
		x := filtertest.Exchange(t, "GET", "http://a/", 80)
		action, err := run(t, Config{Protocol: HTTP, Cluster: "c"}, answers(status, "no", "Location", "/login", "Content-Length", "2", "Set-Cookie", "a=b"), x)
		if err != nil || action != filters.Reply || x.Resp.Status != want {
			t.Errorf("%d: %v, %v, status %d, want %d", status, action, err, x.Resp.Status, want)
			continue
		}
		body, _ := io.ReadAll(x.RespBody)
		if got := filtertest.Lines(x.Resp.Fields) + string(body); got != "Location: /login\nSet-Cookie: a=b\nno" {
			t.Errorf("%d: the client gets %q", status, got)
		}
	}
}

// TestFailsClosed: no answer, or none that can be used, is a refusal.
func TestFailsClosed(t *testing.T) {
	tests := map[string]struct {
		config Config
		server exchange.Caller
	}{
		"invalid":       {Config{Protocol: HTTP, Invalid: "BackendNotFound"}, answers(200, "")},
		"no caller":     {Config{Protocol: HTTP, Cluster: "c"}, nil},
		"500":           {Config{Protocol: HTTP, Cluster: "c"}, answers(500, "")},
		"503":           {Config{Protocol: HTTP, Cluster: "c"}, answers(503, "")},
		"bad value":     {Config{Protocol: HTTP, Cluster: "c"}, answers(200, "", "X-User", "a\r\nb: c")},
		"unreachable":   {Config{Protocol: HTTP, Cluster: "c"}, server(func(*exchange.Call) *exchange.Fault { return exchange.NewFault(exchange.UpstreamConnect, nil) })},
		"grpc, 404":     {Config{Protocol: GRPC, Cluster: "c"}, answers(404, "")},
		"grpc, nothing": {Config{Protocol: GRPC, Cluster: "c"}, answers(200, "", "grpc-status", "0")},
		"grpc, status":  {Config{Protocol: GRPC, Cluster: "c"}, answers(200, frame(nil), "grpc-status", "14")},
		"grpc, silence": {Config{Protocol: GRPC, Cluster: "c"}, answers(200, frame(nil))},
		"grpc, empty":   {Config{Protocol: GRPC, Cluster: "c"}, answers(200, frame(nil), "grpc-status", "0")},
		"grpc, two":     {Config{Protocol: GRPC, Cluster: "c"}, answers(200, frame(nil)+frame(nil), "grpc-status", "0")},
		"grpc, zipped":  {Config{Protocol: GRPC, Cluster: "c"}, answers(200, "\x01"+frame(nil)[1:], "grpc-status", "0")},
		"grpc, noise":   {Config{Protocol: GRPC, Cluster: "c"}, answers(200, frame([]byte("\xff\xff\xff")), "grpc-status", "0")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, tt.config, tt.server, filtertest.Exchange(t, "GET", "http://a/", 80))
			wantFault(t, err, exchange.AuthFailed)
		})
	}
}

// stream is a body of unknown length.
type stream struct {
	io.Reader
	trailers exchange.Fields
}

func (stream) Close() error                { return nil }
func (stream) Length() int64               { return -1 }
func (s stream) Trailers() exchange.Fields { return s.trailers }

// TestBody: the server and the backend get the same bytes; one too many is refused before anybody is asked.
func TestBody(t *testing.T) {
	for name, body := range map[string]func(string) exchange.Body{
		"known":   func(s string) exchange.Body { return exchange.Bytes([]byte(s)) },
		"unknown": func(s string) exchange.Body { return stream{Reader: strings.NewReader(s)} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{0, 1, 99, 100, 101, 10_000} {
				sent := strings.Repeat("x", size)
				x := filtertest.Exchange(t, "POST", "http://a/", 80, "Expect", "100-continue")
				x.ReqBody = body(sent)
				asked := "nobody"
				_, err := run(t, Config{Protocol: HTTP, Cluster: "c", MaxBody: 100}, server(func(c *exchange.Call) *exchange.Fault {
					asked = string(c.Body)
					return answers(200, "")(c)
				}), x)
				if size > 100 {
					wantFault(t, err, exchange.BodyTooLarge)
					if asked != "nobody" {
						t.Errorf("%d bytes: the server was asked", size)
					}
					continue
				}
				got, readErr := io.ReadAll(x.ReqBody)
				if err != nil || readErr != nil || asked != sent || string(got) != sent {
					t.Errorf("%d bytes: %v, %v; the server got %d, the backend %d", size, err, readErr, len(asked), len(got))
				}
			}
		})
	}
}

// TestTrailers: a trailer cannot say what the server alone may.
func TestTrailers(t *testing.T) {
	x := filtertest.Exchange(t, "POST", "http://a/", 80)
	x.ReqBody = stream{Reader: strings.NewReader("b"), trailers: filtertest.Fields("X_User", "mallory", "x-set", "m", "X-Fine", "1")}
	if _, err := run(t, Config{Protocol: HTTP, Cluster: "c", AllowedResponseHeaders: []string{"x-user", "x-set"}}, answers(200, "", "x-set", "s"), x); err != nil {
		t.Fatal(err)
	}
	if got := filtertest.Lines(x.ReqBody.Trailers()); got != "X-Fine: 1\n" {
		t.Errorf("trailers %q", got)
	}
}

// frame makes a gRPC message.
func frame(message []byte) string {
	out := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return string(append(out, message...))
}

func says(t *testing.T, r *authv3.CheckResponse) server {
	t.Helper()
	message, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *exchange.Call) *exchange.Fault {
		c.Trailers = filtertest.Fields("grpc-status", "0")
		return answers(200, frame(message), "Content-Type", "application/grpc")(c)
	}
}

func option(name, value string, appended *wrapperspb.BoolValue, how corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	//lint:ignore SA1019 servers of the protocol still say it
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, Append: appended, AppendAction: how}
}

func set(name, value string) *corev3.HeaderValueOption {
	return option(name, value, nil, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
}

// TestGRPCAllowed: the changes that an OkHttpResponse asks for.
func TestGRPCAllowed(t *testing.T) {
	x := filtertest.Exchange(t, "GET", "http://a/p", 80, "X_User", "mallory", "X-List", "1", "Authorization", "Bearer t", "X-Old", "o")
	x.Resp.Fields = filtertest.Fields("X-Resp", "backend")
	action, err := run(t, Config{Protocol: GRPC, Cluster: "c"}, says(t, &authv3.CheckResponse{
		Status: &rpcstatus.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{
				set("x-user", "alice"), option("x-list", "2", wrapperspb.Bool(true), 0), set(":path", "/evil"), set("Host", "evil"), set("content-length", "9"),
				option("x-old", "n", nil, corev3.HeaderValueOption_ADD_IF_ABSENT), option("x-none", "n", nil, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS),
			},
			HeadersToRemove:      []string{"authorization", "host", ":path"},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{set("x-resp", "auth"), option("set-cookie", "s=1", wrapperspb.Bool(true), 0)},
		}},
	}), x)
	if err != nil || action != filters.Continue {
		t.Fatalf("%v, %v", action, err)
	}
	if got, want := filtertest.Lines(x.Req.Fields), "X-List: 1\nX-Old: o\nx-user: alice\nx-list: 2\n"; got != want {
		t.Errorf("the backend gets\n%swant\n%s", got, want)
	}
	if got, want := filtertest.Lines(x.Resp.Fields), "x-resp: auth\nset-cookie: s=1\n"; got != want {
		t.Errorf("the client gets\n%swant\n%s", got, want)
	}
	if x.Req.Path() != "/p" || x.Req.Authority != "a" {
		t.Errorf("path %q, authority %q", x.Req.Path(), x.Req.Authority)
	}
}

// TestGRPCDecision: which answers let a request go on.
func TestGRPCDecision(t *testing.T) {
	denied := &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: 401}, Headers: []*corev3.HeaderValueOption{set("www-authenticate", "x")}, Body: "no",
	}}
	okay := &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}
	tests := map[string]struct {
		answer *authv3.CheckResponse
		want   int // 0: goes on; -1: the answer is unusable
	}{
		"status ok":          {&authv3.CheckResponse{Status: &rpcstatus.Status{}}, 0},
		"ok response":        {&authv3.CheckResponse{HttpResponse: okay}, 0},
		"both":               {&authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: okay}, 0},
		"status alone":       {&authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}}, 403},
		"status beats ok":    {&authv3.CheckResponse{Status: &rpcstatus.Status{Code: 16}, HttpResponse: okay}, 403},
		"denied":             {&authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: denied}, 401},
		"denied beats ok":    {&authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: denied}, 401},
		"denied, no status":  {&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_DeniedResponse{}}, -1},
		"error":              {&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_ErrorResponse{ErrorResponse: &authv3.DeniedHttpResponse{}}}, -1},
		"query":              {&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{QueryParametersToRemove: []string{"a"}}}}, -1},
		"value not sendable": {&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{set("x", "a\nb")}}}}, -1},
		"name not sendable":  {&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{set("x y", "a")}}}}, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := decide(tt.answer)
			switch {
			case tt.want < 0:
				if err == nil {
					t.Errorf("got %+v", v)
				}
			case err != nil, v.allow != (tt.want == 0), v.denial.Status != tt.want:
				t.Errorf("got %+v, %v; want status %d", v, err, tt.want)
			}
		})
	}
}

// TestGRPCQuestion: what the CheckRequest says, with text that protocol buffers cannot carry among it.
func TestGRPCQuestion(t *testing.T) {
	x := filtertest.Exchange(t, "POST", "https://a.example/p?q=1", 443, "Cookie", "a=1", "cookie", "b=2", "X-A", "1", "x-a", "\xff", "TE", "trailers")
	x.ReqBody = exchange.Bytes([]byte("\xff body"))
	var got authv3.CheckRequest
	ask := func(c Config) *authv3.AttributeContext_HttpRequest {
		t.Helper()
		c.Protocol, c.Cluster = GRPC, "c"
		_, err := run(t, c, server(func(c *exchange.Call) *exchange.Fault {
			if c.Head.Method != "POST" || c.Head.Path() != checkPath || c.Head.Fields.Get(exchange.ContentType) != "application/grpc" ||
				c.Head.Fields.Get(exchange.TE) != "trailers" {
				t.Errorf("the call is %s %s\n%s", c.Head.Method, c.Head.Path(), filtertest.Lines(c.Head.Fields))
			}
			if err := proto.Unmarshal(c.Body[messageHead:], &got); err != nil || frame(c.Body[messageHead:]) != string(c.Body) {
				t.Errorf("the message cannot be read: %v", err)
			}
			return says(t, &authv3.CheckResponse{Status: &rpcstatus.Status{}})(c)
		}), x)
		if err != nil {
			t.Fatal(err)
		}
		return got.GetAttributes().GetRequest().GetHttp()
	}
	http := ask(Config{MaxBody: 100})
	headers := http.GetHeaders()
	if http.GetPath() != "/p?q=1" || http.GetHost() != "a.example" || http.GetMethod() != "POST" || http.GetScheme() != "https" ||
		http.GetProtocol() != "HTTP/1.1" || string(http.GetRawBody()) != "\xff body" || http.GetSize() != 6 {
		t.Errorf("got %v", http)
	}
	if headers["cookie"] != "a=1; b=2" || headers["x-a"] != "1,!" || headers[":path"] != "/p?q=1" || headers["te"] != "" || len(headers) != 6 {
		t.Errorf("headers %v", headers)
	}
	if source := got.GetAttributes().GetSource().GetAddress().GetSocketAddress(); source.GetAddress() != "192.0.2.7" || source.GetPortValue() != 40000 {
		t.Errorf("source %v", source)
	}
	if headers := ask(Config{AllowedHeaders: []string{"X-A"}}).GetHeaders(); len(headers) != 1 || headers["x-a"] != "1,!" {
		t.Errorf("headers %v", headers)
	}
}

// TestPrincipal: only a certificate that was verified says who the client is.
func TestPrincipal(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse("spiffe://a/b")
	if err != nil {
		t.Fatal(err)
	}
	for want, template := range map[string]*x509.Certificate{
		"spiffe://a/b":   {URIs: []*url.URL{id}, DNSNames: []string{"a.example"}},
		"a.example":      {DNSNames: []string{"a.example", "b.example"}, Subject: pkix.Name{CommonName: "alice"}},
		"CN=alice,O=Org": {Subject: pkix.Name{CommonName: "alice", Organization: []string{"Org"}}},
	} {
		template.SerialNumber = big.NewInt(1)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		info := &exchange.TLSInfo{PeerCertificates: [][]byte{der}}
		if got := principal(info); got != "" {
			t.Errorf("not verified: %q", got)
		}
		info.SetVerdict(1, true)
		if got := principal(info); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"protocol":            {Config{Cluster: "c"}, "protocol"},
		"no cluster":          {Config{Protocol: HTTP}, "cluster is empty"},
		"cluster and invalid": {Config{Protocol: HTTP, Cluster: "c", Invalid: "x"}, "both set"},
		"negative":            {Config{Protocol: HTTP, Cluster: "c", MaxBody: -1}, "negative"},
		"path with grpc":      {Config{Protocol: GRPC, Cluster: "c", Path: "/a"}, "for protocol HTTP"},
		"climbing path":       {Config{Protocol: HTTP, Cluster: "c", Path: "/../a"}, "climbs"},
		"query in path":       {Config{Protocol: HTTP, Cluster: "c", Path: "/a?b"}, "must be escaped"},
		"allowed":             {Config{Protocol: HTTP, Cluster: "c", AllowedHeaders: []string{":path"}}, "not a field name"},
		"returned":            {Config{Protocol: HTTP, Cluster: "c", AllowedResponseHeaders: []string{"a b"}}, "not a field name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { filtertest.CheckRefused(t, Spec(), tt.config, tt.want) })
	}
	filtertest.CheckStrict(t, Spec())
}

func TestClusters(t *testing.T) {
	for _, e := range filtertest.Examples(t) {
		if e.Kind != Kind {
			t.Errorf("README.md shows a %s", e.Kind)
		}
		filtertest.Build(t, Spec(), e.Payload)
		if got := Spec().Clusters(e.Payload); len(got) != 1 || !strings.HasPrefix(got[0], "Service/auth/checker/") {
			t.Errorf("clusters %v", got)
		}
		if got := Spec().Describe(e.Payload); !strings.HasPrefix(got, "ask Service/auth/checker/") {
			t.Errorf("described as %q", got)
		}
	}
	if got := Spec().Clusters(filters.Encode(Config{Protocol: HTTP, Invalid: "x"})); got != nil {
		t.Errorf("clusters %v", got)
	}
}

// FuzzGRPCAnswer: whatever the server sends, a request goes on only after an OK that says so, and nothing is changed that must not be.
func FuzzGRPCAnswer(f *testing.F) {
	for _, r := range []*authv3.CheckResponse{
		{}, {Status: &rpcstatus.Status{}}, {Status: &rpcstatus.Status{Code: 7}},
		{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{set("x", "y"), set(":path", "/")}}}},
		{HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 302}}}},
	} {
		message, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(frame(message)), "0")
	}
	f.Add([]byte{0, 0, 0, 0}, "0")
	f.Add([]byte{0, 255, 255, 255, 255}, "0")
	f.Fuzz(func(t *testing.T, body []byte, status string) {
		v, err := grpcAnswer(&exchange.Call{
			Answer: exchange.Response{Status: 200}, AnswerBody: body, Trailers: filtertest.Fields("grpc-status", status),
		})
		if err != nil {
			return
		}
		if status != "0" {
			t.Fatalf("status %q is taken", status)
		}
		for _, c := range append(v.request, v.response...) {
			if !validChange(c.name, c.value) {
				t.Errorf("changes %q to %q", c.name, c.value)
			}
		}
		var answer authv3.CheckResponse
		if err := proto.Unmarshal(body[messageHead:], &answer); err != nil {
			t.Fatal(err)
		}
		if v.allow && (answer.GetStatus().GetCode() != 0 || answer.GetDeniedResponse() != nil || answer.GetErrorResponse() != nil) {
			t.Errorf("%v lets the request go on", &answer)
		}
		if !v.allow && (v.denial.Status < 200 || v.denial.Status > 599) {
			t.Errorf("denied with status %d", v.denial.Status)
		}
	})
}
