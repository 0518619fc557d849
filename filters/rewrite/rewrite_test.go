package rewrite

import (
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/filtertest"
	"gatehouse.dev/gatehouse/filters/pathmod"
)

func TestRewrite(t *testing.T) {
	tests := map[string]struct {
		config    Config
		method    string
		url       string
		authority string
		target    string
	}{
		"nothing":  {url: "http://a:80/x?q", authority: "a:80", target: "/x?q"},
		"hostname": {config: Config{Hostname: "one.example.org"}, url: "http://a:80/x?q", authority: "one.example.org", target: "/x?q"},
		"full path": {
			config: Config{Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "/one"}},
			url:    "http://a/full/one/two?q=%zz;", authority: "a", target: "/one?q=%zz;",
		},
		"prefix": {
			config: Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "/one", MatchedPrefix: "/prefix/one"}},
			url:    "http://a/prefix/one/two?", authority: "a", target: "/one/two?",
		},
		"prefix stripped": {
			config: Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "/", MatchedPrefix: "/strip-prefix"}},
			url:    "http://a/strip-prefix/three", authority: "a", target: "/three",
		},
		"all stripped": {
			config: Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "/", MatchedPrefix: "/strip-prefix"}},
			url:    "http://a/strip-prefix", authority: "a", target: "/",
		},
		"both": {
			config: Config{Hostname: "b", Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "//y/../z"}},
			url:    "http://a/x", authority: "b", target: "/z",
		},
		"OPTIONS *": {
			config: Config{Hostname: "b", Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "/y"}},
			method: "OPTIONS", url: "http://a*", authority: "b", target: "*",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := filtertest.Exchange(t, tt.method, tt.url, 80)
			f := filtertest.Build(t, Spec(), tt.config)
			if action, err := f.OnRequest(t.Context(), x); action != filters.Continue || err != nil {
				t.Fatalf("OnRequest: %v, %v", action, err)
			}
			f.OnResponse(x)
			if x.Req.Authority != tt.authority || x.Req.ForwardTarget() != tt.target {
				t.Errorf("%q %q, want %q %q", x.Req.Authority, x.Req.ForwardTarget(), tt.authority, tt.target)
			}
		})
	}
}

// A rule's rewrite runs before its backend's, which then no longer finds the prefix.
func TestRuleThenBackend(t *testing.T) {
	rule := filtertest.Build(t, Spec(), Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "/b", MatchedPrefix: "/a"}})
	backend := filtertest.Build(t, Spec(), Config{Path: &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: "/c", MatchedPrefix: "/a"}})
	x := filtertest.Exchange(t, "GET", "http://h/a/x", 80)
	for _, f := range []filters.Filter{rule, backend} {
		if _, err := f.OnRequest(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if got := x.Req.Path(); got != "/b/x" {
		t.Errorf("path %q, want /b/x", got)
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"hostname with a port": {Config{Hostname: "a:80"}, `hostname "a:80" is not valid`},
		"hostname, line end":   {Config{Hostname: "a\r\nX: y"}, "is not valid"},
		"path type":            {Config{Path: &pathmod.Config{Value: "/"}}, "is not known"},
		"relative path":        {Config{Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "x"}}, "does not begin with '/'"},
		"query":                {Config{Path: &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: "/x?y"}}, "must be escaped"},
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
	x := filtertest.Exchange(t, "GET", "http://example.org/api/reviews/7?stars=1", 80)
	if _, err := filtertest.Build(t, Spec(), example.Payload).OnRequest(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if x.Req.Authority != "reviews.internal" || x.Req.ForwardTarget() != "/v2/7?stars=1" {
		t.Errorf("%q %q", x.Req.Authority, x.Req.ForwardTarget())
	}
	want := "rewrite: host becomes reviews.internal, path prefix /api/reviews/ becomes /v2/"
	if got := Spec().Describe(example.Payload); got != want {
		t.Errorf("Describe: %q, want %q", got, want)
	}
	if got := Spec().Describe([]byte("{}")); got != "rewrite nothing" {
		t.Errorf("Describe: %q", got)
	}
}
