package redirect

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/filtertest"
	"gatehouse.dev/gatehouse/filters/pathmod"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

func TestLocation(t *testing.T) {
	tests := map[string]struct {
		config Config
		url    string
		port   uint16 // of the listener
		status int
		want   string
	}{
		"nothing given":                {url: "http://a.example/x", port: 80, want: "http://a.example/x"},
		"hostname":                     {config: Config{Hostname: "example.org"}, url: "http://a.example/x", port: 80, want: "http://example.org/x"},
		"scheme":                       {config: Config{Scheme: "https"}, url: "http://a.example/x", port: 80, want: "https://a.example/x"},
		"query stays byte for byte":    {config: Config{Scheme: "https"}, url: "http://a/x?b=%2f;&&%zz=ü?/", port: 80, want: "https://a/x?b=%2f;&&%zz=ü?/"},
		"empty query stays":            {config: Config{Scheme: "https"}, url: "http://a/x?", port: 80, want: "https://a/x?"},
		"normalised path":              {config: Config{Scheme: "https"}, url: "http://a//evil.example/..//%7Ex", port: 80, want: "https://a/~x"},
		"escapes stay":                 {config: Config{Scheme: "https"}, url: "http://a/%0d%0aSet-Cookie:x", port: 80, want: "https://a/%0D%0ASet-Cookie:x"},
		"port of the request is not":   {config: Config{}, url: "http://a:1234/x", port: 80, want: "http://a/x"},
		"OPTIONS *":                    {config: Config{Scheme: "https"}, url: "http://a*", port: 80, want: "https://a"},
		"full path":                    {config: Config{Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "/y"}}, url: "http://a/x?q", port: 80, want: "http://a/y?q"},
		"full path cannot go off-site": {config: Config{Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "//evil.example"}}, url: "http://a/x", port: 80, want: "http://a/evil.example"},
		"prefix": {
			config: Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "/xyz", MatchedPrefix: "/foo"}},
			url:    "http://a/foo/bar", port: 80, want: "http://a/xyz/bar",
		},
		"prefix taken away cannot go off-site": {
			config: Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "", MatchedPrefix: "/foo"}},
			url:    "http://a/foo//evil.example/x", port: 80, want: "http://a/evil.example/x",
		},

		// What the request's host may be.
		"upper case":          {url: "http://A.Example:80/x", port: 80, want: "http://a.example/x"},
		"trailing dot":        {url: "http://a.example.:80/x", port: 80, want: "http://a.example/x"},
		"IPv4":                {url: "http://192.0.2.1/x", port: 8080, want: "http://192.0.2.1:8080/x"},
		"IPv6":                {url: "http://[2001:DB8::1]:80/x", port: 8080, want: "http://[2001:db8::1]:8080/x"},
		"underscore":          {url: "http://my_app/", port: 80, want: "http://my_app/"},
		"IPv6 without a port": {config: Config{Scheme: "https"}, url: "http://[::1]/x", port: 80, want: "https://[::1]/x"},

		"301": {config: Config{StatusCode: 301}, url: "http://a/", port: 80, status: 301, want: "http://a/"},
		"303": {config: Config{StatusCode: 303}, url: "http://a/", port: 80, status: 303, want: "http://a/"},
		"307": {config: Config{StatusCode: 307}, url: "http://a/", port: 80, status: 307, want: "http://a/"},
		"308": {config: Config{StatusCode: 308}, url: "http://a/", port: 80, status: 308, want: "http://a/"},

		// The port rules of HTTPRequestRedirectFilter.port, listener by listener.
		"80: nothing":             {config: Config{}, url: "http://a/", port: 80, want: "http://a/"},
		"80: port 80":             {config: Config{Port: 80}, url: "http://a/", port: 80, want: "http://a/"},
		"80: port 8080":           {config: Config{Port: 8080}, url: "http://a/", port: 80, want: "http://a:8080/"},
		"80: https":               {config: Config{Scheme: "https"}, url: "http://a/", port: 80, want: "https://a/"},
		"80: https and 443":       {config: Config{Scheme: "https", Port: 443}, url: "http://a/", port: 80, want: "https://a/"},
		"80: https and 8443":      {config: Config{Scheme: "https", Port: 8443}, url: "http://a/", port: 80, want: "https://a:8443/"},
		"80: port 443":            {config: Config{Port: 443}, url: "http://a/", port: 80, want: "http://a:443/"},
		"8080: nothing":           {config: Config{}, url: "http://a/", port: 8080, want: "http://a:8080/"},
		"8080: port 80":           {config: Config{Port: 80}, url: "http://a/", port: 8080, want: "http://a/"},
		"8080: https":             {config: Config{Scheme: "https"}, url: "http://a/", port: 8080, want: "https://a/"},
		"8080: http":              {config: Config{Scheme: "http"}, url: "http://a/", port: 8080, want: "http://a/"},
		"443: nothing":            {config: Config{}, url: "https://a/", port: 443, want: "https://a/"},
		"443: port 443":           {config: Config{Port: 443}, url: "https://a/", port: 443, want: "https://a/"},
		"443: port 8443":          {config: Config{Port: 8443}, url: "https://a/", port: 443, want: "https://a:8443/"},
		"443: http":               {config: Config{Scheme: "http"}, url: "https://a/", port: 443, want: "http://a/"},
		"443: http and 80":        {config: Config{Scheme: "http", Port: 80}, url: "https://a/", port: 443, want: "http://a/"},
		"443: http and 8080":      {config: Config{Scheme: "http", Port: 8080}, url: "https://a/", port: 443, want: "http://a:8080/"},
		"8443: nothing":           {config: Config{}, url: "https://a/", port: 8443, want: "https://a:8443/"},
		"8443: http on port 443":  {config: Config{Scheme: "http", Port: 443}, url: "https://a/", port: 8443, want: "http://a:443/"},
		"8443: https on port 80":  {config: Config{Scheme: "https", Port: 80}, url: "https://a/", port: 8443, want: "https://a:80/"},
		"80: the highest port":    {config: Config{Port: 65535}, url: "http://a/", port: 80, want: "http://a:65535/"},
		"listener port not known": {config: Config{}, url: "http://a/", want: "http://a/"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			method := "GET"
			if strings.HasSuffix(tt.url, "*") {
				method = "OPTIONS"
			}
			x := filtertest.Exchange(t, method, tt.url, tt.port)
			action, err := filtertest.Build(t, Spec(), tt.config).OnRequest(t.Context(), x)
			if action != filters.Reply || err != nil {
				t.Fatalf("OnRequest: %v, %v", action, err)
			}
			if tt.status == 0 {
				tt.status = 302
			}
			if x.Resp.Status != tt.status || x.RespBody != exchange.NoBody {
				t.Errorf("status %d with %v, want %d without a body", x.Resp.Status, x.RespBody, tt.status)
			}
			if got := filtertest.Lines(x.Resp.Fields); got != "Location: "+tt.want+"\n" {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if x.Resp.Fields.Get(exchange.Location) != tt.want {
				t.Error("Location is not found by its ID")
			}
		})
	}
}

func TestHostsThatCannotStandInALocation(t *testing.T) {
	hosts := []string{
		"", ":80", "user@evil.example", "a:b@evil.example", "evil.example/", "evil.example\\", "evil.example?", "evil.example#", "a b", "a\r\nX: y",
		"a%2eb", "a,b", "ä.example", "a:80:90", "a:x", "a:80/", "2001:db8::1", "[::1", "[::1]x", "[::1]:x", "[1.2.3.4]", "[fe80::1%25eth0]",
		"[fe80::1%eth0]", "[v1.a]", "[]", "*", "\u212a.example",
	}
	for _, host := range hosts {
		x := filtertest.Exchange(t, "GET", "http://a/x", 80)
		x.Req.Authority = host
		_, err := filtertest.Build(t, Spec(), Config{Scheme: "https"}).OnRequest(t.Context(), x)
		if fault, ok := errors.AsType[*exchange.Fault](err); !ok || fault.Kind != exchange.BadRequest {
			t.Errorf("%q: err = %v, Location %q; want a fault of kind %s", host, err, x.Resp.Fields.Get(exchange.Location), exchange.BadRequest)
		}
		action, err := filtertest.Build(t, Spec(), Config{Hostname: "example.org"}).OnRequest(t.Context(), x)
		if got := x.Resp.Fields.Get(exchange.Location); action != filters.Reply || err != nil || got != "http://example.org/x" {
			t.Errorf("%q with a hostname: %v, %v, %q", host, action, err, got)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"scheme":            {Config{Scheme: "ftp"}, `scheme "ftp" is not supported`},
		"scheme with colon": {Config{Scheme: "https://evil/"}, "is not supported"},
		"hostname":          {Config{Hostname: "evil.example/"}, "is not valid"},
		"hostname, port":    {Config{Hostname: "example.org:80"}, "is not valid"},
		"status":            {Config{StatusCode: 304}, "statusCode 304 is not supported"},
		"path type":         {Config{Path: &pathmod.Config{Type: "x", Value: "/"}}, "is not known"},
		"path":              {Config{Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: `/\evil.example`}}, "must be escaped"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { filtertest.CheckRefused(t, Spec(), tt.config, tt.want) })
	}
	filtertest.CheckStrict(t, Spec())
	if err := Spec().Validate([]byte(`{"port":65536}`)); err == nil {
		t.Error("port 65536 passes")
	}
}

func TestReadmeExample(t *testing.T) {
	example := filtertest.Examples(t)[0]
	if example.Kind != Kind {
		t.Fatalf("README.md shows a %s", example.Kind)
	}
	f := filtertest.Build(t, Spec(), example.Payload)
	x := filtertest.Exchange(t, "GET", "http://example.org:8080/store/cart?id=7", 8080)
	if action, err := f.OnRequest(t.Context(), x); action != filters.Reply || err != nil {
		t.Fatalf("OnRequest: %v, %v", action, err)
	}
	f.OnResponse(x)
	if got, want := x.Resp.Fields.Get(exchange.Location), "https://www.example.org/shop/cart?id=7"; got != want || x.Resp.Status != 301 {
		t.Errorf("%d %s, want 301 %s", x.Resp.Status, got, want)
	}
	want := "redirect 301: scheme https, host www.example.org, path prefix /store/ becomes /shop/"
	if got := Spec().Describe(example.Payload); got != want {
		t.Errorf("Describe: %q, want %q", got, want)
	}
}

func TestDescribe(t *testing.T) {
	for want, config := range map[string]Config{
		"redirect 302":            {},
		"redirect 308: port 8443": {Port: 8443, StatusCode: 308},
	} {
		if got := Spec().Describe(filters.Encode(config)); got != want {
			t.Errorf("Describe: %q, want %q", got, want)
		}
	}
}

// FuzzLocation checks that whatever a client sends, the Location is a URL that leads back to the host it asked for.
func FuzzLocation(f *testing.F) {
	f.Add("a.example:80", "/x//y/../z?q")
	f.Add("user@a", "//evil.example")
	f.Add("[::1]:80", "/%2f%2fevil")
	f.Add("a\\b", "/\\evil")
	f.Add("A.", "/?/")
	f.Fuzz(func(t *testing.T, host, target string) {
		x := filtertest.Exchange(t, "GET", "http://a/", 8080)
		x.Req.Authority, x.Req.Target = host, target
		if x.Req.Normalize() != nil {
			return
		}
		filter, err := compile(Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, MatchedPrefix: "/x"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := filter.OnRequest(t.Context(), x); err != nil {
			return
		}
		location := x.Resp.Fields.Get(exchange.Location)
		rest, ok := strings.CutPrefix(location, "http://")
		if !ok || strings.ContainsAny(location, " \r\n\x00\\") && !strings.ContainsAny(x.Req.Query(), `\`) {
			t.Fatalf("%q, %q: Location %q", host, target, location)
		}
		authority := rest[:strings.IndexAny(rest, "/?")]
		if want := strings.Trim(x.Req.Host(), "[]"); strings.Trim(strings.TrimSuffix(authority, ":8080"), "[]") != want || strings.Contains(authority, "@") {
			t.Errorf("%q, %q: Location %q leads to %q, not to %q", host, target, location, authority, want)
		}
		if u, err := url.Parse(location); err == nil && u.User != nil {
			t.Errorf("%q, %q: Location %q names a user", host, target, location)
		}
	})
}
