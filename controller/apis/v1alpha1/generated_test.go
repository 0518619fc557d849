package v1alpha1

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGeneratedFilesAreCurrent generates what `make generate` does into another folder and compares.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	out := t.TempDir()
	generate := exec.Command("go", "tool", "-modfile=.ci/tools/go.mod", "controller-gen", "object", "crd", "paths=./controller/apis/...",
		"output:object:dir="+out, "output:crd:dir="+out)
	generate.Dir = filepath.Join("..", "..", "..")
	if text, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("controller-gen: %v\n%s", err, text)
	}
	for name, committed := range map[string]string{
		"zz_generated.deepcopy.go":             "zz_generated.deepcopy.go",
		"gatehouse.dev_gatewayparameters.yaml": "../../../deploy/crds/gatehouse.dev_gatewayparameters.yaml",
	} {
		want, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(committed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what types.go says: run make generate", committed)
		}
	}
}
