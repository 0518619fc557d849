package hostile

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCatalogue holds README.md and the tests together, both ways.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string][]string{}
	tests := func(dir string) []string {
		if _, known := declared[dir]; !known {
			declared[dir] = declaredIn(t, dir)
		}
		return declared[dir]
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`(?:([a-z0-9/]+)\\.)?((?:Test|Benchmark)\\w+)`").FindAllStringSubmatch(string(readme), -1) {
		dir := "."
		if m[1] != "" {
			dir = filepath.Join("../..", m[1])
		} else {
			named[m[2]] = true
		}
		if !slices.Contains(tests(dir), m[2]) {
			t.Errorf("README.md names %s, which is not in %s", m[2], dir)
		}
	}
	for _, name := range tests(".") {
		if !named[name] && name != "TestMain" && name != "TestCatalogue" {
			t.Errorf("README.md does not say what %s holds", name)
		}
	}
	if len(named) < 10 {
		t.Errorf("README.md names %d tests of this package", len(named))
	}
}

// declaredIn returns the tests and benchmarks of a directory.
func declaredIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(source)) {
			if rest, ok := strings.CutPrefix(line, "func "); ok {
				name, _, _ := strings.Cut(rest, "(")
				if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Benchmark") {
					names = append(names, name)
				}
			}
		}
	}
	return names
}
