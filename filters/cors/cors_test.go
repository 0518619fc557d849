package cors

import (
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/filtertest"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// manyOrigins and the others are the policies that Gateway API's own conformance test uses.
var (
	manyOrigins = Config{
		AllowOrigins: []string{"https://www.foo.com", "https://*.bar.com"}, AllowMethods: []string{"GET", "OPTIONS"},
		AllowHeaders: []string{"x-header-1", "x-header-2"}, ExposeHeaders: []string{"x-header-3", "x-header-4"},
		AllowCredentials: true, MaxAge: 3600,
	}
	anyMethod      = Config{AllowOrigins: []string{"https://www.foo.com"}, AllowMethods: []string{"*"}}
	anyOriginPut   = Config{AllowOrigins: []string{"*"}, AllowMethods: []string{"PUT"}}
	allCredentials = Config{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, AllowCredentials: true}
	allOpen        = Config{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}
)

func TestPreflight(t *testing.T) {
	manyOriginsTo := func(origin string) string {
		return "Vary: Origin\nAccess-Control-Allow-Origin: " + origin + `
Access-Control-Allow-Credentials: true
Access-Control-Expose-Headers: x-header-3, x-header-4
Access-Control-Allow-Methods: GET, OPTIONS
Access-Control-Allow-Headers: x-header-1, x-header-2
Access-Control-Max-Age: 3600
`
	}
	tests := map[string]struct {
		config  Config
		origin  string
		method  string
		headers string
		want    string
	}{
		"exact":             {manyOrigins, "https://www.foo.com", "GET", "x-header-1, x-header-2", manyOriginsTo("https://www.foo.com")},
		"wildcard":          {manyOrigins, "https://www.bar.com", "GET", "x-header-1", manyOriginsTo("https://www.bar.com")},
		"wildcard, deeper":  {manyOrigins, "https://xpto.www.bar.com", "DELETE", "", manyOriginsTo("https://xpto.www.bar.com")},
		"not covered":       {manyOrigins, "https://foobar.com", "GET", "", "Vary: Origin\n"},
		"apex":              {manyOrigins, "https://bar.com", "GET", "", "Vary: Origin\n"},
		"another scheme":    {manyOrigins, "http://www.foo.com", "GET", "", "Vary: Origin\n"},
		"another port":      {manyOrigins, "https://www.foo.com:8443", "GET", "", "Vary: Origin\n"},
		"null":              {manyOrigins, "null", "GET", "", "Vary: Origin\n"},
		"no origin allowed": {Config{AllowMethods: []string{"*"}}, "https://a", "GET", "", "Vary: Origin\n"},
		"any method": {
			anyMethod, "https://www.foo.com", "POST", "x-a",
			"Vary: Origin\nAccess-Control-Allow-Origin: https://www.foo.com\nAccess-Control-Allow-Methods: POST\nAccess-Control-Max-Age: 5\n",
		},
		"any origin": {
			anyOriginPut, "https://foobar.com:12345", "PUT", "",
			"Access-Control-Allow-Origin: *\nAccess-Control-Allow-Methods: PUT\nAccess-Control-Max-Age: 5\n",
		},
		"all with credentials": {
			allCredentials, "https://other.foo.com", "PUT", "x-header-1, x-header-2",
			"Vary: Origin\nAccess-Control-Allow-Origin: https://other.foo.com\nAccess-Control-Allow-Credentials: true\n" +
				"Access-Control-Allow-Methods: PUT\nAccess-Control-Allow-Headers: x-header-1, x-header-2\nAccess-Control-Max-Age: 5\n",
		},
		"all with credentials, no headers": {
			allCredentials, "null", "PUT", "",
			"Vary: Origin\nAccess-Control-Allow-Origin: null\nAccess-Control-Allow-Credentials: true\nAccess-Control-Allow-Methods: PUT\nAccess-Control-Max-Age: 5\n",
		},
		"all without credentials": {
			allOpen, "https://other.foo.com", "PUT", "authorization",
			"Access-Control-Allow-Origin: *\nAccess-Control-Allow-Methods: PUT\nAccess-Control-Allow-Headers: authorization\nAccess-Control-Max-Age: 5\n",
		},
		"nothing that is no name is repeated": {
			allOpen, "https://a", "PUT, x y", "x:y",
			"Access-Control-Allow-Origin: *\nAccess-Control-Max-Age: 5\n",
		},
		"an origin that is none is not repeated": {allCredentials, "https://a, https://b", "PUT", "", "Vary: Origin\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := filtertest.Exchange(t, "OPTIONS", "http://gw/cors", 80, "Origin", tt.origin, "access-control-request-method", tt.method)
			if tt.headers != "" {
				x.Req.Fields.Add("access-control-request-headers", tt.headers)
			}
			f := filtertest.Build(t, Spec(), tt.config)
			action, err := f.OnRequest(t.Context(), x)
			if action != filters.Reply || err != nil || x.Resp.Status != 204 || x.RespBody != exchange.NoBody {
				t.Fatalf("OnRequest: %v, %v, status %d", action, err, x.Resp.Status)
			}
			f.OnResponse(x)
			if got := filtertest.Lines(x.Resp.Fields); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestResponse(t *testing.T) {
	upstream := []string{
		"Content-Type", "text/plain", "access-control-allow-origin", "*", "Access-Control-Allow-Credentials", "true", "X-Total", "3",
		"Access-Control-Allow-Methods", "DELETE", "Access-Control-Allow-Headers", "x", "Access-Control-Expose-Headers", "y",
		"Access-Control-Max-Age", "9", "x-total", "4",
	}
	const kept = "Content-Type: text/plain\nX-Total: 3\nx-total: 4\n"
	tests := map[string]struct {
		config  Config
		method  string
		headers []string
		vary    string
		want    string
	}{
		"exact": {
			config: manyOrigins, headers: []string{"Origin", "https://www.foo.com", "access-control-request-method", "GET"},
			want: kept + "Vary: Origin\nAccess-Control-Allow-Origin: https://www.foo.com\nAccess-Control-Allow-Credentials: true\nAccess-Control-Expose-Headers: x-header-3, x-header-4\n",
		},
		"wildcard": {
			config: manyOrigins, headers: []string{"Origin", "https://a.bar.com"},
			want: kept + "Vary: Origin\nAccess-Control-Allow-Origin: https://a.bar.com\nAccess-Control-Allow-Credentials: true\nAccess-Control-Expose-Headers: x-header-3, x-header-4\n",
		},
		"not covered":   {config: manyOrigins, headers: []string{"Origin", "https://foobar.com"}, want: kept + "Vary: Origin\n"},
		"no Origin":     {config: manyOrigins, want: kept + "Vary: Origin\n"},
		"two Origins":   {config: manyOrigins, headers: []string{"Origin", "https://www.foo.com", "origin", "https://evil.example"}, want: kept + "Vary: Origin\n"},
		"Vary is there": {config: anyMethod, vary: "accept, ORIGIN", want: kept + "Vary: accept, ORIGIN\n"},
		"Vary: *":       {config: anyMethod, vary: "*", want: kept + "Vary: *\n"},
		"another Vary":  {config: anyMethod, vary: "Accept", want: kept + "Vary: Accept\nVary: Origin\n"},
		"OPTIONS that is no preflight": {
			config: anyMethod, method: "OPTIONS", headers: []string{"Origin", "https://www.foo.com"},
			want: kept + "Vary: Origin\nAccess-Control-Allow-Origin: https://www.foo.com\n",
		},
		"any origin":            {config: anyOriginPut, headers: []string{"Origin", "https://foobar.com"}, want: kept + "Access-Control-Allow-Origin: *\n"},
		"any origin, no Origin": {config: anyOriginPut, want: kept + "Access-Control-Allow-Origin: *\n"},
		"any origin with credentials": {
			config: allCredentials, headers: []string{"Origin", "https://other.foo.com"},
			want: kept + "Vary: Origin\nAccess-Control-Allow-Origin: https://other.foo.com\nAccess-Control-Allow-Credentials: true\n",
		},
		"expose all": {
			config: Config{AllowOrigins: []string{"*"}, ExposeHeaders: []string{"*"}}, headers: []string{"Origin", "https://a"},
			want: kept + "Access-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: *\n",
		},
		"expose all with credentials": {
			config:  Config{AllowOrigins: []string{"http://a"}, ExposeHeaders: []string{"x", "*"}, AllowCredentials: true},
			headers: []string{"Origin", "http://a"},
			want:    kept + "Vary: Origin\nAccess-Control-Allow-Origin: http://a\nAccess-Control-Allow-Credentials: true\nAccess-Control-Expose-Headers: Content-Type, X-Total, Vary\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := filtertest.Exchange(t, tt.method, "http://gw/cors", 80, tt.headers...)
			f := filtertest.Build(t, Spec(), tt.config)
			if action, err := f.OnRequest(t.Context(), x); action != filters.Continue || err != nil {
				t.Fatalf("OnRequest: %v, %v", action, err)
			}
			x.Req.Fields.Del("Origin") // as a header modifier may do
			x.Resp.Fields = filtertest.Fields(upstream...)
			if tt.vary != "" {
				x.Resp.Fields.Add("Vary", tt.vary)
			}
			f.OnResponse(x)
			if got := filtertest.Lines(x.Resp.Fields); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	tests := map[string]struct {
		pattern string
		match   []string
		not     []string
	}{
		"host": {
			"https://www.foo.com",
			[]string{"https://www.foo.com", "https://www.foo.com:443"},
			[]string{"https://foo.com", "https://a.www.foo.com", "https://www.foo.com:80", "http://www.foo.com", "http://www.foo.com:443", "https://www.foo.com.", "https://www.foo.com/", "HTTPS://www.foo.com", "www.foo.com", "", "null"},
		},
		"pattern in upper case": {"HTTPS://WWW.Foo.com", []string{"https://www.foo.com"}, []string{"https://WWW.Foo.com"}},
		"port":                  {"http://localhost:3000", []string{"http://localhost:3000"}, []string{"http://localhost", "http://localhost:03001", "http://localhost:3000:3000", "http://localhost:x", "http://localhost:"}},
		"well-known port":       {"http://a:80", []string{"http://a", "http://a:80"}, []string{"https://a", "https://a:80"}},
		"sub-names":             {"https://*.bar.com", []string{"https://a.bar.com", "https://a.b.bar.com"}, []string{"https://bar.com", "https://.bar.com", "https://evilbar.com", "https://a.bar.com.evil", "https://a.bar.com:8443", "https://evil.example/.bar.com", "https://u@a.bar.com", "https://a b.bar.com"}},
		"sub-names with port":   {"http://*.bar.com:8080", []string{"http://a.bar.com:8080"}, []string{"http://a.bar.com"}},
		"every host":            {"https://*", []string{"https://a", "https://b.c.d", "https://192.0.2.1", "https://[2001:db8::1]"}, []string{"http://a", "https://a:8443", "https://", "https://[::1", "https://[x]", "https://[1.2.3.4]", "https://[fe80::1%eth0]"}},
		"every host on a port":  {"http://*:8080", []string{"http://a:8080", "http://[::1]:8080"}, []string{"http://a", "https://a:8080"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := compile(Config{AllowOrigins: []string{tt.pattern}})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range tt.match {
				if p.allows(o) != o {
					t.Errorf("%q does not cover %q", tt.pattern, o)
				}
			}
			for _, o := range tt.not {
				if p.allows(o) != "" {
					t.Errorf("%q covers %q", tt.pattern, o)
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"no scheme":              {Config{AllowOrigins: []string{"www.foo.com"}}, `origin "www.foo.com" is not valid: it must begin with`},
		"another scheme":         {Config{AllowOrigins: []string{"ftp://a"}}, "it must begin with"},
		"no host":                {Config{AllowOrigins: []string{"https://"}}, "behind the scheme comes"},
		"path":                   {Config{AllowOrigins: []string{"https://a/"}}, "behind the scheme comes"},
		"wildcard inside":        {Config{AllowOrigins: []string{"https://a.*.b"}}, "behind the scheme comes"},
		"wildcard in a label":    {Config{AllowOrigins: []string{"https://*foo.com"}}, "behind the scheme comes"},
		"wildcard and dot":       {Config{AllowOrigins: []string{"https://*."}}, "behind the scheme comes"},
		"two wildcards":          {Config{AllowOrigins: []string{"https://**"}}, "behind the scheme comes"},
		"port 0":                 {Config{AllowOrigins: []string{"https://a:0"}}, "a port is a number"},
		"port over 65535":        {Config{AllowOrigins: []string{"https://a:65536"}}, "a port is a number"},
		"no port":                {Config{AllowOrigins: []string{"https://a:"}}, "a port is a number"},
		"* beside origins":       {Config{AllowOrigins: []string{"*", "https://a"}}, "stands beside other origins"},
		"* beside methods":       {Config{AllowMethods: []string{"GET", "*"}}, "allowMethods: \"*\" stands beside"},
		"* beside headers":       {Config{AllowHeaders: []string{"*", "x"}}, "allowHeaders: \"*\" stands beside"},
		"method that is no name": {Config{AllowMethods: []string{"G T"}}, `allowMethods: "G T" is not a name`},
		"header that is no name": {Config{AllowHeaders: []string{"x\r\ny"}}, "is not a name"},
		"exposed, no name":       {Config{ExposeHeaders: []string{""}}, `exposeHeaders: "" is not a name`},
		"maxAge":                 {Config{MaxAge: -1}, "maxAge -1 is negative"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { filtertest.CheckRefused(t, Spec(), tt.config, tt.want) })
	}
	filtertest.CheckStrict(t, Spec())
}

func TestReadmeExample(t *testing.T) {
	example := filtertest.Examples(t)[0]
	if example.Kind != Kind {
		t.Fatalf("README.md shows a %s", example.Kind)
	}
	f := filtertest.Build(t, Spec(), example.Payload)
	x := filtertest.Exchange(t, "OPTIONS", "https://example.org/items", 443, "Origin", "https://shop.example.net", "Access-Control-Request-Method", "PUT")
	if action, err := f.OnRequest(t.Context(), x); action != filters.Reply || err != nil {
		t.Fatalf("OnRequest: %v, %v", action, err)
	}
	f.OnResponse(x)
	want := `Vary: Origin
Access-Control-Allow-Origin: https://shop.example.net
Access-Control-Allow-Credentials: true
Access-Control-Expose-Headers: X-Total
Access-Control-Allow-Methods: GET, PUT
Access-Control-Allow-Headers: X-Request-Token
Access-Control-Max-Age: 600
`
	if got := filtertest.Lines(x.Resp.Fields); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := Spec().Describe(example.Payload), "cors: origins https://www.example.org, https://*.example.net with credentials"; got != want {
		t.Errorf("Describe: %q, want %q", got, want)
	}
	if got := Spec().Describe([]byte("{}")); got != "cors: no origin allowed" {
		t.Errorf("Describe: %q", got)
	}
}

// FuzzOrigin checks that no pattern covers an origin of another registrable host, and that what is written back is one word.
func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{"https://a.bar.com", "https://bar.com", "https://evil.example#.bar.com", "https://[::1]", "http://x.bar.com:443", "null", "https://a:b@c.bar.com", "\n"} {
		f.Add("https://*.bar.com", seed)
		f.Add("*", seed)
		f.Add("http://*:8080", seed)
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		p, err := compile(Config{AllowOrigins: []string{pattern}})
		if err != nil {
			return
		}
		got := p.allows(value)
		if got == "" {
			return
		}
		if got != value || strings.ContainsAny(got, " \t\r\n\x00,") {
			t.Fatalf("%q: %q is written back as %q", pattern, value, got)
		}
		suffix, wild := strings.CutPrefix(strings.ToLower(pattern), "https://*.")
		if wild && !strings.Contains(suffix, ":") && !strings.HasSuffix(strings.TrimSuffix(value, ":443"), "."+suffix) {
			host, _, _ := strings.Cut(strings.TrimPrefix(value, "https://"), ":")
			if !strings.HasSuffix(host, "."+suffix) {
				t.Errorf("%q covers %q", pattern, value)
			}
		}
	})
}
