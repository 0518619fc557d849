package pathmod

import (
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func TestApply(t *testing.T) {
	prefix := func(match, value string) *Config {
		return &Config{Type: ReplacePrefixMatch, Value: value, MatchedPrefix: match}
	}
	full := func(value string) *Config { return &Config{Type: ReplaceFullPath, Value: value} }
	tests := map[string]struct {
		config *Config
		path   string
		want   string
	}{
		// The table in the documentation of HTTPPathModifier.replacePrefixMatch, line by line.
		"table 1":  {prefix("/foo", "/xyz"), "/foo/bar", "/xyz/bar"},
		"table 2":  {prefix("/foo", "/xyz/"), "/foo/bar", "/xyz/bar"},
		"table 3":  {prefix("/foo/", "/xyz"), "/foo/bar", "/xyz/bar"},
		"table 4":  {prefix("/foo/", "/xyz/"), "/foo/bar", "/xyz/bar"},
		"table 5":  {prefix("/foo", "/xyz"), "/foo", "/xyz"},
		"table 6":  {prefix("/foo", "/xyz"), "/foo/", "/xyz/"},
		"table 7":  {prefix("/foo", ""), "/foo/bar", "/bar"},
		"table 8":  {prefix("/foo", ""), "/foo/", "/"},
		"table 9":  {prefix("/foo", ""), "/foo", "/"},
		"table 10": {prefix("/foo", "/"), "/foo/", "/"},
		"table 11": {prefix("/foo", "/"), "/foo", "/"},

		"slashes on both, no rest":         {prefix("/foo/", "/xyz/"), "/foo", "/xyz"},
		"whole segments only":              {prefix("/foo", "/xyz"), "/foobar", "/foobar"},
		"no such prefix":                   {prefix("/foo", "/xyz"), "/bar/foo", "/bar/foo"},
		"prefix of the root":               {prefix("/", "/xyz"), "/a/b", "/xyz/a/b"},
		"prefix of the root, root":         {prefix("/", "/xyz"), "/", "/xyz/"},
		"prefix not given":                 {prefix("", "/xyz"), "/a", "/xyz/a"},
		"root by root":                     {prefix("/", "/"), "/a/", "/a/"},
		"deep":                             {prefix("/a/b", "/c/d/e"), "/a/b/x/", "/c/d/e/x/"},
		"match in another spelling":        {prefix("/%66oo//bar/", "/xyz"), "/foo/bar/a", "/xyz/a"},
		"value in another spelling":        {prefix("/foo", "//xyz/./%61"), "/foo/b", "/xyz/a/b"},
		"escapes in the rest stay":         {prefix("/foo", "/xyz"), "/foo/a%2Fb", "/xyz/a%2Fb"},
		"a value that looks off-site":      {prefix("/foo", "//evil.example"), "/foo", "/evil.example"},
		"full":                             {full("/one"), "/a/b", "/one"},
		"full, slash at the end":           {full("/one/"), "/a", "/one/"},
		"full, empty":                      {full(""), "/a", "/"},
		"full, another spelling":           {full("/a/../one%2f"), "/a", "/one%2F"},
		"full, a value that looks offsite": {full("//evil.example/"), "/a", "/evil.example/"},
		"asterisk, full":                   {full("/one"), "*", "*"},
		"asterisk, prefix":                 {prefix("/", "/xyz"), "*", "*"},
		"nothing to do":                    {nil, "/a", "/a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := Compile(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Apply(tt.path); got != tt.want {
				t.Errorf("Apply(%q) = %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"unknown type":         {Config{Type: "ReplaceSuffix", Value: "/a"}, `type "ReplaceSuffix" is not known`},
		"no type":              {Config{Value: "/a"}, `type "" is not known`},
		"relative":             {Config{Type: ReplaceFullPath, Value: "a"}, "does not begin with '/'"},
		"URL":                  {Config{Type: ReplaceFullPath, Value: "https://evil.example"}, "does not begin with '/'"},
		"query":                {Config{Type: ReplaceFullPath, Value: "/a?b"}, `holds "?"`},
		"fragment":             {Config{Type: ReplacePrefixMatch, Value: "/a#b"}, `holds "#"`},
		"backslash":            {Config{Type: ReplaceFullPath, Value: `/\evil`}, "must be escaped"},
		"line end":             {Config{Type: ReplaceFullPath, Value: "/a\r\nb"}, "must be escaped"},
		"climbs":               {Config{Type: ReplacePrefixMatch, Value: "/../a"}, "climbs"},
		"bad prefix":           {Config{Type: ReplacePrefixMatch, Value: "/a", MatchedPrefix: "foo"}, `matchedPrefix "foo"`},
		"prefix without a use": {Config{Type: ReplaceFullPath, Value: "/a", MatchedPrefix: "/foo"}, "leave it out"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Compile(&tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestString(t *testing.T) {
	for want, config := range map[string]*Config{
		"":                               nil,
		"path becomes /one":              {Type: ReplaceFullPath, Value: "/one"},
		"path prefix /foo/ becomes /":    {Type: ReplacePrefixMatch, Value: "", MatchedPrefix: "/foo"},
		"path prefix / becomes /a/b/":    {Type: ReplacePrefixMatch, Value: "/a/b"},
		"path prefix /foo/ becomes /xy/": {Type: ReplacePrefixMatch, Value: "/xy/", MatchedPrefix: "/foo/"},
	} {
		m, err := Compile(config)
		if err != nil || m.String() != want {
			t.Errorf("%v: %q, %v; want %q", config, m.String(), err, want)
		}
	}
}

// FuzzApply checks that a normalised path stays normalised, whatever the settings.
func FuzzApply(f *testing.F) {
	for _, seed := range [][3]string{{"/foo", "/xyz", "/foo/bar"}, {"/", "", "/"}, {"/a//", "//b", "/a/b/"}, {"/%61", "/.", "/a%2Fb"}, {"", "/..", "/x"}} {
		f.Add(seed[0], seed[1], seed[2], true)
		f.Add("", seed[1], seed[2], false)
	}
	f.Fuzz(func(t *testing.T, match, value, path string, prefix bool) {
		config := &Config{Type: ReplaceFullPath, Value: value}
		if prefix {
			config = &Config{Type: ReplacePrefixMatch, Value: value, MatchedPrefix: match}
		}
		m, err := Compile(config)
		if err != nil {
			return
		}
		normalised, err := exchange.NormalizePath(path)
		if err != nil {
			return
		}
		got := m.Apply(normalised)
		if again, err := exchange.NormalizePath(got); err != nil || again != got {
			t.Errorf("%+v makes %q of %q, which normalises to %q, %v", *config, got, normalised, again, err)
		}
	})
}
