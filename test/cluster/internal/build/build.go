// Package build builds the programs of a test cluster once and keeps them by their content: a program whose sources and modules did not change
// is not built again, whichever checkout asks for it.
//
//	${XDG_CACHE_HOME:-~/.cache}/gatehouse/cluster/HASH/NAME
//
// HASH covers everything that decides what comes out: go.mod (which names the Go release too), go.sum, the sources and the flags.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Program is something to be built.
type Program struct {
	// Name is the file's.
	Name string
	// Module is the folder of its go.mod, and Package the package's folder in it ("." or "./cmd/x").
	Module, Package string
	// LDFlags are the linker's.
	LDFlags []string
}

// ErrSources says that the sources of a program are not where they were looked for.
var ErrSources = errors.New("the sources of the test cluster are not found")

// Folder returns the folder of the module test/cluster, looking for it from a folder upwards.
func Folder(from string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		candidate := filepath.Join(dir, "test", "cluster")
		if _, err := os.Stat(filepath.Join(candidate, "controlplane", "go.mod")); err == nil {
			return candidate, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%w: no folder from %s upwards has test/cluster", ErrSources, from)
		}
	}
}

// kubernetesVersion is what go.mod of controlplane names, and the programs say of themselves.
const kubernetesVersion = "v1.37.1"

// ControlPlane is the program of etcd, kube-apiserver and the others.
func ControlPlane(folder string) Program {
	const version = "k8s.io/component-base/version"
	minor := strings.Split(kubernetesVersion, ".")[1]
	return Program{Name: "controlplane", Module: filepath.Join(folder, "controlplane"), Package: ".", LDFlags: []string{
		"-X " + version + ".gitVersion=" + kubernetesVersion, "-X " + version + ".gitMajor=1", "-X " + version + ".gitMinor=" + minor,
		"-X " + version + ".gitTreeState=clean", "-X " + version + ".gitCommit=none", "-X " + version + ".buildDate=1970-01-01T00:00:00Z",
	}}
}

// Command is the program gatehouse-cluster, which is the agent too.
func Command(folder string) Program {
	return Program{Name: "gatehouse-cluster", Module: folder, Package: "./cmd/gatehouse-cluster"}
}

// arguments are those of the go command. They are the same for every program and every way to build it, because Go's own build cache holds
// what was compiled with each set of flags separately.
func (p Program) arguments(output string) []string {
	flags := strings.Join(append([]string{"-s -w"}, p.LDFlags...), " ")
	return []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", output, p.Package}
}

// Path returns where the program lies or would lie, and whether it does.
func (p Program) Path() (path string, built bool, err error) {
	hash, err := p.hash()
	if err != nil {
		return "", false, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", false, fmt.Errorf("%w: set XDG_CACHE_HOME or HOME", err)
	}
	path = filepath.Join(cache, "gatehouse", "cluster", hash, p.Name)
	_, err = os.Stat(path)
	return path, err == nil, nil
}

// Build returns the program's path and builds it if it has to, telling progress what it does.
func (p Program) Build(ctx context.Context, progress io.Writer) (string, error) {
	path, built, err := p.Path()
	if err != nil || built {
		return path, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	// Beside the place where it is to be, so that it gets there whole, whoever else builds it at the same time.
	temporary, err := os.MkdirTemp(filepath.Dir(path), "."+p.Name)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	output := filepath.Join(temporary, p.Name)
	cmd := exec.CommandContext(ctx, "go", p.arguments(output)...)
	cmd.Dir = p.Module
	// GOFLAGS of the user's would make another program of it. GOTOOLCHAIN fetches the release that go.mod names.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=auto")
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w", p.Name, p.Module, err)
	}
	if err := os.Rename(output, path); err != nil {
		return "", err
	}
	return path, p.prune(filepath.Dir(filepath.Dir(path)))
}

// kept is how many versions of a program are kept, for checkouts of different age.
const kept = 4

// prune removes all but the newest versions of the program from the cache.
func (p Program) prune(cache string) error {
	paths, err := filepath.Glob(filepath.Join(cache, "*", p.Name))
	if err != nil {
		return err
	}
	ages := map[string]time.Time{}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // another process may be pruning too
			ages[path] = info.ModTime()
		}
	}
	slices.SortFunc(paths, func(a, b string) int { return ages[b].Compare(ages[a]) })
	for _, path := range paths[min(kept, len(paths)):] {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

func (p Program) hash() (string, error) {
	files, err := p.sources()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s %q\n", runtime.GOOS, runtime.GOARCH, p.arguments(""))
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(p.Module, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n", name, len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// sources lists the files of the program's module, without tests and without other modules in it, sorted.
func (p Program) sources() ([]string, error) {
	var files []string
	err := filepath.WalkDir(p.Module, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != p.Module && err == nil {
				return fs.SkipDir
			}
			return nil
		}
		name := entry.Name()
		module := path == filepath.Join(p.Module, name) && (name == "go.mod" || name == "go.sum")
		if module || strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			relative, err := filepath.Rel(p.Module, path)
			if err != nil {
				return err
			}
			files = append(files, relative)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}
