package arch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	tests := map[string]struct {
		pattern, pkg string
		want         bool
	}{
		"itself":           {"a/b", "a/b", true},
		"not its child":    {"a/b", "a/b/c", false},
		"direct child":     {"a/*", "a/b", true},
		"not itself":       {"a/*", "a", false},
		"not a grandchild": {"a/*", "a/b/c", false},
		"tree's root":      {"a/...", "a", true},
		"tree's leaf":      {"a/...", "a/b/c", true},
		"not a namesake":   {"a/...", "ab", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := matches(tt.pattern, tt.pkg); got != tt.want {
				t.Errorf("matches(%q, %q) = %v", tt.pattern, tt.pkg, got)
			}
		})
	}
}

// The rules themselves, on a page that is not ours: a test that cannot fail would hold nothing.
func TestImportProblems(t *testing.T) {
	const page = `
| package | what lives there | may import | never |
|---|---|---|---|
| ` + "`a`" + ` | x | none | |
| ` + "`a/*`" + ` | x | ` + "`a`" + ` | |
| ` + "`b/...`" + ` | x | ` + "`a`, `a/*`" + ` | |
| ` + "`cmd/...`" + ` | x | any | |

| import | only in |
|---|---|
| ` + "`net/http`, `k8s.io/...`" + ` | ` + "`b`, `cmd/...`" + ` |
`
	tests := map[string]struct {
		pkg     string
		imports []string
		want    string
	}{
		"nothing":             {"a", []string{"fmt"}, ""},
		"nothing of ours":     {"a", []string{module + "/b"}, "imports b"},
		"allowed":             {"a/x", []string{module + "/a"}, ""},
		"sibling":             {"a/x", []string{module + "/a/y"}, "imports a/y"},
		"within a tree":       {"b/x", []string{module + "/b/y", module + "/b"}, ""},
		"by pattern":          {"b", []string{module + "/a/x"}, ""},
		"not below a pattern": {"b", []string{module + "/a/x/y"}, "imports a/x/y"},
		"any":                 {"cmd/x", []string{module + "/b/y"}, ""},
		"fenced out":          {"b/x", []string{"net/http"}, "imports net/http"},
		"fenced out below":    {"a", []string{"k8s.io/api/core/v1"}, "imports k8s.io/api/core/v1"},
		"fenced in":           {"b", []string{"net/http", "k8s.io/api/core/v1"}, ""},
		"no row":              {"c", nil, "has no row"},
	}
	list, err := rooms(page)
	if err != nil {
		t.Fatal(err)
	}
	fenced, err := fences(page)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(importProblems(pkg{ImportPath: module + "/" + tt.pkg, Imports: tt.imports}, list, fenced), "; ")
			if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHiddenStateIsFound(t *testing.T) {
	const text = `package x
import ("sync"; "sync/atomic")
var table = [...]string{"a"}
var pool = sync.Pool{}
var Exported = 1
var mu sync.Mutex
var count atomic.Int64
var m = map[string]int{}
var s struct{ n int }
const Word Kind = "word"
type Kind string
func init() {}
func (Kind) init() {}
func f() {
	m["a"] = 1
	s.n++
	p := &s
	table := table
	table[0] = "b" // a local of the same name
	_ = p
}
`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := readSource(t, pkg{Dir: dir, ImportPath: "x", GoFiles: []string{"x.go"}})
	if got := len(s.inits()); got != 1 {
		t.Errorf("%d init functions, want 1", got)
	}
	var places []string
	for _, n := range s.writes() {
		places = append(places, s.at(dir, n))
	}
	if want := []string{"x.go:15", "x.go:16", "x.go:17"}; !slices.Equal(places, want) {
		t.Errorf("writes at %v, want %v", places, want)
	}
	var held []string
	for _, v := range s.packageVars() {
		if locks(v) {
			held = append(held, v.Names[0].Name)
		}
	}
	if want := []string{"mu", "count"}; !slices.Equal(held, want) {
		t.Errorf("stateful variables %v, want %v", held, want)
	}
	if got := s.stringConsts("Kind"); !slices.Equal(got, []string{"word"}) {
		t.Errorf("constants %q", got)
	}
}
