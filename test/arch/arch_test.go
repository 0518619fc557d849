package arch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository returns the module's folder.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func readPage(t *testing.T, path ...string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(append([]string{repository(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	list, err := packages(repository(t))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func readSource(t *testing.T, p pkg) *source {
	t.Helper()
	s, err := parse(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestImports holds every import of ours against the import table, and every import that the second table fences in.
func TestImports(t *testing.T) {
	page := readPage(t, "docs", "architecture.md")
	list, err := rooms(page)
	if err != nil {
		t.Fatal(err)
	}
	fenced, err := fences(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range listPackages(t) {
		for _, problem := range importProblems(p, list, fenced) {
			t.Errorf("%s: %s", p.name(), problem)
		}
	}
}

func importProblems(p pkg, list []room, fenced []fence) []string {
	var problems []string
	r, ok := roomOf(list, p.name())
	if !ok {
		return []string{"the import table of docs/architecture.md has no row for it: add one that says what lives there"}
	}
	for _, path := range p.Imports {
		if other, ok := ours(path); ok {
			if !r.allows(other) {
				problems = append(problems, "imports "+other+", which the row of "+r.pattern+" in docs/architecture.md does not allow")
			}
			continue
		}
		for _, f := range fenced {
			if anyMatches(f.imports, path) && !anyMatches(f.only, p.name()) {
				problems = append(problems, "imports "+path+", which docs/architecture.md allows only in "+strings.Join(f.only, ", "))
			}
		}
	}
	return problems
}

// TestRoomsAreTrue finds rows for packages that are gone, and planned ones that have come.
func TestRoomsAreTrue(t *testing.T) {
	list, err := rooms(readPage(t, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	lived := map[string]bool{}
	for _, p := range listPackages(t) {
		r, _ := roomOf(list, p.name())
		lived[r.pattern] = true
	}
	for _, r := range list {
		switch {
		case r.planned && lived[r.pattern]:
			t.Errorf("docs/architecture.md calls %s planned, but it is there", r.pattern)
		case !r.planned && !lived[r.pattern]:
			t.Errorf("docs/architecture.md has a row for %s, but there is no such package", r.pattern)
		}
	}
}

// TestDataPlaneLinksNoKubernetes looks at everything that the data plane links, not at direct imports alone.
func TestDataPlaneLinksNoKubernetes(t *testing.T) {
	for _, p := range listPackages(t) {
		if !anyMatches([]string{"gateway/...", "routing/...", "filters/...", "auth/..."}, p.name()) {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "k8s.io/") || strings.HasPrefix(dep, "sigs.k8s.io/") {
				t.Errorf("%s links %s", p.name(), dep)
			}
		}
	}
}

// TestNoHiddenState finds init functions and package variables that can change.
func TestNoHiddenState(t *testing.T) {
	// Constants by nature that Go cannot declare as such.
	constant := []string{"gateway/exchange.NoBody"}
	dir := repository(t)
	for _, p := range listPackages(t) {
		s := readSource(t, p)
		for _, n := range s.inits() {
			t.Errorf("%s: func init: let main call it", s.at(dir, n))
		}
		for _, n := range s.writes() {
			t.Errorf("%s: a package variable is written, or its address taken: give it an owner", s.at(dir, n))
		}
		for _, v := range s.packageVars() {
			if locks(v) {
				t.Errorf("%s: a package variable that exists to be changed: give it an owner", s.at(dir, v))
			}
			for _, name := range v.Names {
				if name.IsExported() && !strings.HasPrefix(name.Name, "Err") && !slices.Contains(constant, p.name()+"."+name.Name) {
					t.Errorf("%s: exported variable %s: others could write it", s.at(dir, v), name.Name)
				}
			}
		}
	}
}
