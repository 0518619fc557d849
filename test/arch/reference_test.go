package arch

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// findPackage returns one package of ours by its path below the module's.
func findPackage(t *testing.T, name string) *source {
	t.Helper()
	list := listPackages(t)
	i := slices.IndexFunc(list, func(p pkg) bool { return p.name() == name })
	if i < 0 {
		t.Fatalf("there is no package %s", name)
	}
	return readSource(t, list[i])
}

// words returns the first column of the reference's table with the given header, and whole rows by it.
func words(t *testing.T, header ...string) map[string][]string {
	t.Helper()
	rows, err := tableOf(readPage(t, "docs", "reference.md"), header...)
	if err != nil {
		t.Fatal(err)
	}
	byWord := map[string][]string{}
	for _, row := range rows {
		for _, word := range code(row[0]) {
			byWord[word] = row
		}
	}
	return byWord
}

// TestReferenceListsFaults compares the table of faults with the constants, status and side included.
func TestReferenceListsFaults(t *testing.T) {
	listed := words(t, "kind", "status", "side")
	for _, kind := range findPackage(t, "gateway/exchange").stringConsts("Kind") {
		row, ok := listed[kind]
		if !ok {
			t.Errorf("docs/reference.md does not list the fault %s", kind)
			continue
		}
		delete(listed, kind)
		fault := exchange.NewFault(exchange.Kind(kind), nil)
		if status := strconv.Itoa(fault.Status); row[1] != status || row[2] != fault.Origin.String() {
			t.Errorf("docs/reference.md says %s is %s of the %s, the code %s of the %s", kind, row[1], row[2], status, fault.Origin)
		}
	}
	for kind := range listed {
		t.Errorf("docs/reference.md lists the fault %s, which does not exist", kind)
	}
}

// TestReferenceListsProblems compares the table of problems with the constants.
func TestReferenceListsProblems(t *testing.T) {
	listed := words(t, "reason", "of")
	for _, reason := range findPackage(t, "controller/problem").stringConsts("Reason") {
		if _, ok := listed[reason]; !ok {
			t.Errorf("docs/reference.md does not list the reason %s", reason)
		}
		delete(listed, reason)
	}
	for reason := range listed {
		t.Errorf("docs/reference.md lists the reason %s, which does not exist", reason)
	}
}

// TestReferencePathsAreTrue runs the examples of the path table.
func TestReferencePathsAreTrue(t *testing.T) {
	rows, err := tableOf(readPage(t, "docs", "reference.md"), "received", "becomes")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		want := code(row[1])
		for i, path := range code(row[0]) {
			got, err := exchange.NormalizePath(path)
			switch {
			case row[1] == "refused":
				if err == nil {
					t.Errorf("%s is said to be refused and becomes %s", path, got)
				}
			case err != nil || got != want[min(i, len(want)-1)]:
				t.Errorf("%s becomes %s (%v), docs/reference.md says %s", path, got, err, row[1])
			}
		}
	}
}

// TestReferenceListsFlags finds flags of the programs that the reference does not name.
func TestReferenceListsFlags(t *testing.T) {
	page := readPage(t, "docs", "reference.md")
	for _, name := range []string{"cmd/gatehouse", "cmd/gatehouse-proxy", "cmd/internal/dataplane", "cmd/bookinfo"} {
		for _, flag := range findPackage(t, name).flags() {
			if !regexp.MustCompile("`[^`]*--" + regexp.QuoteMeta(flag) + "[ `]").MatchString(page) {
				t.Errorf("docs/reference.md does not list --%s of %s", flag, name)
			}
		}
	}
}

// flags returns the names given to flag definitions: the first string after the variable in calls like StringVar and BoolVarP.
func (s *source) flags() []string {
	var list []string
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 3 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !strings.HasSuffix(strings.TrimSuffix(sel.Sel.Name, "P"), "Var") {
				return true
			}
			if lit, ok := call.Args[1].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				list = append(list, strings.Trim(lit.Value, `"`))
			}
			return true
		})
	}
	return list
}

// TestLinks finds links to files that are not there, in the pages that people read first.
func TestLinks(t *testing.T) {
	root := repository(t)
	pages := []string{"README.md", "CONTRIBUTING.md"}
	docs, err := os.ReadDir(filepath.Join(root, "docs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range docs {
		if strings.HasSuffix(entry.Name(), ".md") {
			pages = append(pages, filepath.Join("docs", entry.Name()))
		}
	}
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}
