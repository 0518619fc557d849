package routing

import (
	"strings"
	"testing"
)

func TestValidateMatch(t *testing.T) {
	tests := map[string]struct {
		match   Match
		wantErr string
	}{
		"zero":                            {Match{}, ""},
		"prefix":                          {prefix("/a/b/"), ""},
		"path type":                       {Match{PathType: "Glob", Path: "/"}, `path type "Glob" is unknown`},
		"exact without path":              {exact(""), "'/'"},
		"exact, relative":                 {exact("a"), "'/'"},
		"prefix, relative":                {prefix("a"), "'/'"},
		"above the root":                  {prefix("/.."), "above the root"},
		"NUL":                             {prefix("/%00"), "%00"},
		"broken escape":                   {exact("/%zz"), "hex"},
		"space":                           {prefix("/a b"), "can match no request"},
		"fragment":                        {prefix("/a#b"), "can match no request"},
		"query in the path":               {prefix("/a?b=c"), "'?'"},
		"escaped slash":                   {prefix("/a%2Fb"), ""},
		"regex":                           {regex("/a.*"), ""},
		"regex, empty":                    {regex(""), "path: regular expression is empty"},
		"regex, broken":                   {regex("/("), "not valid RE2"},
		"regex, brackets that pair up":    {regex("a)(b"), "not valid RE2"},
		"regex, look-ahead":               {regex("(?!a)"), "not valid RE2"},
		"regex, back reference":           {regex(`(a)\1`), "not valid RE2"},
		"regex, open quotation":           {regex(`\Qa)`), ""},
		"regex, longest":                  {regex(strings.Repeat("a", MaxPattern)), ""},
		"regex, too long":                 {regex(strings.Repeat("a", MaxPattern+1)), "4097 bytes long"},
		"regex, expands":                  {regex("(" + strings.Repeat("a", 100) + "){100}"), "expands"},
		"regex, nested repetition":        {regex("((aaaaaaaaaa){10}){100}"), "expands"},
		"regex, repetition":               {regex("/[a-z]{1,1000}"), ""},
		"regex, nested to the limit":      {regex(strings.Repeat("(", 2000) + strings.Repeat(")", 2000)), "not valid RE2"},
		"specificity":                     {prefix("/a").specific(1<<24 - 1), ""},
		"specificity, too much":           {prefix("/a").specific(1 << 24), "specificity 16777216"},
		"method":                          {Match{Method: "PURGE"}, ""},
		"method, no token":                {Match{Method: "GET POST"}, "method"},
		"header":                          {Match{}.header("x-a", ""), ""},
		"header without name":             {Match{}.header("", "a"), "header 0"},
		"header, no token":                {Match{}.header("x-a", "").header("x:a", "a"), "header 1"},
		"header regex":                    {Match{}.headerRegex("x-a", "a|b"), ""},
		"header regex, broken":            {Match{}.headerRegex("x-a", "["), `header "x-a": regular expression "["`},
		"query":                           {Match{}.query("a b", ""), ""},
		"query without name":              {Match{}.query("", "a"), "query parameter 0"},
		"query regex, broken":             {Match{}.queryRegex("q", "?"), `query parameter "q"`},
		"second of equivalent headers":    {Match{}.header("x-a", "1").headerRegex("X-A", "["), ""},
		"second of equivalent parameters": {Match{}.query("q", "1").queryRegex("q", "["), ""},
		"parameters in another case":      {Match{}.query("q", "1").queryRegex("Q", "["), `query parameter "Q"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			checkErr(t, ValidateMatch(test.match), test.wantErr)
			_, err := Compile([]Rule[int]{{Match: test.match}})
			checkErr(t, err, test.wantErr)
		})
	}
}

func TestLiteralPrefix(t *testing.T) {
	tests := map[string]string{
		"/api/.*":       "/api/",
		"^/api/.*":      "/api/",
		`\A/api$`:       "/api",
		"/api":          "/api",
		"/a|/b":         "/",
		"(?i)/api":      "",
		"(?i:/api)/x":   "",
		"(/api)/x":      "",
		"[ab]c":         "",
		".*":            "",
		"(?m)^/a":       "",
		"^":             "",
		"/a\uFFFDb":     "/a",
		`/a\.b+`:        "/a.",
		"/abc?":         "/ab",
		"a{3}":          "",
		`\Q/a.b`:        "/a.b",
		"/api(/v1)?/.*": "/api",
	}
	for source, want := range tests {
		t.Run(source, func(t *testing.T) {
			var known patterns
			p, err := known.get(source)
			if err != nil {
				t.Fatal(err)
			}
			if p.prefix != want {
				t.Errorf("prefix %q, want %q", p.prefix, want)
			}
		})
	}
}

// FuzzPattern: what the checks accept compiles, and the literal prefix never rejects what the expression matches.
func FuzzPattern(f *testing.F) {
	f.Add("/api/.*", "/api/x")
	f.Add("(?i)/API", "/api")
	f.Add(`a\Q.b`, "a.b")
	f.Add("^(?:a|ab)$", "ab")
	f.Add("\uFFFD+", "\xff")
	f.Fuzz(func(t *testing.T, source, value string) {
		var known patterns
		p, err := known.get(source)
		if _, _, checked := parsePattern(source); (checked == nil) != (err == nil) {
			t.Fatalf("checked: %v, compiled: %v", checked, err)
		}
		if err != nil {
			return
		}
		if got, want := p.match(value), fullMatch(source, value); got != want {
			t.Fatalf("%q matches %q: %v, want %v", source, value, got, want)
		}
	})
}
