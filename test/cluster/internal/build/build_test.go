package build

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, folder, name, text string) {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestHash(t *testing.T) {
	folder := t.TempDir()
	p := Program{Name: "p", Module: folder, Package: "."}
	write(t, folder, "go.mod", "module p\n")
	write(t, folder, "main.go", "package main\n")
	hash := func() string {
		t.Helper()
		h, err := p.hash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first := hash()
	// What cannot change the program.
	write(t, folder, "main_test.go", "package main\n")
	write(t, folder, "README.md", "text\n")
	write(t, folder, "other/go.mod", "module other\n")
	write(t, folder, "other/other.go", "package other\n")
	if hash() != first {
		t.Error("the hash changed with a file that does not matter")
	}
	// What can, one after the other.
	seen := map[string]string{first: "nothing"}
	differs := func(what string) {
		t.Helper()
		h := hash()
		if before, ok := seen[h]; ok {
			t.Errorf("after a change of %s the hash is that after a change of %s", what, before)
		}
		seen[h] = what
	}
	write(t, folder, "main.go", "package main // changed\n")
	differs("a source")
	write(t, folder, "sub/sub.go", "package sub\n")
	differs("a package")
	write(t, folder, "go.sum", "sum\n")
	differs("go.sum")
	p.LDFlags = []string{"-X a=b"}
	differs("the linker's flags")
}

func TestBuildOnce(t *testing.T) {
	// Only our own cache is to be empty, not the one of the go command that lies beside it.
	output, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(output)))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	folder := t.TempDir()
	write(t, folder, "go.mod", "module p\n\ngo 1.27.0\n")
	write(t, folder, "main.go", "package main\n\nfunc main() {}\n")
	p := Program{Name: "p", Module: folder, Package: "."}
	if _, built, err := p.Path(); err != nil || built {
		t.Fatalf("built before it was built (error %v)", err)
	}
	path, err := p.Build(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if path, err = p.Build(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(first, second) {
		t.Error("it was built twice")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the program there is more: %v, error %v", entries, err)
	}
	write(t, folder, "main.go", "package main\n\nfunc main() { none() }\n")
	if _, err := p.Build(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("a program that does not compile: error %v, want one that names its folder", err)
	}
}

func TestPrune(t *testing.T) {
	cache := t.TempDir()
	for i, name := range []string{"f", "e", "d", "c", "b", "a"} { // the oldest first
		for _, program := range []string{"p", "q"} {
			folder := program + name
			write(t, cache, filepath.Join(folder, program), "")
			age := time.Unix(int64(i), 0)
			if err := os.Chtimes(filepath.Join(cache, folder, program), age, age); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := (Program{Name: "p"}).prune(cache); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if got, want := strings.Join(names, " "), "pa pb pc pd qa qb qc qd qe qf"; got != want {
		t.Errorf("left %s, want %s", got, want)
	}
}

func TestFolder(t *testing.T) {
	root := t.TempDir()
	write(t, root, "test/cluster/controlplane/go.mod", "module c\n")
	write(t, root, "a/b/c.txt", "")
	got, err := Folder(filepath.Join(root, "a", "b"))
	if want := filepath.Join(root, "test", "cluster"); err != nil || got != want {
		t.Errorf("folder %q, error %v, want %q", got, err, want)
	}
	if _, err := Folder(t.TempDir()); err == nil {
		t.Error("found where there is none")
	}
}

// The version that the programs say they have is the one that they are built from.
func TestKubernetesVersion(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "controlplane", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\tk8s.io/kubernetes "+kubernetesVersion+"\n") {
		t.Errorf("go.mod of controlplane does not require k8s.io/kubernetes %s", kubernetesVersion)
	}
}
