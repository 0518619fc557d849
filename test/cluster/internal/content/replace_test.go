package content

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// read returns what a reader of the folder finds under each name.
func read(t *testing.T, folder string, names ...string) []string {
	t.Helper()
	var found []string
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			found = append(found, "-")
			continue
		}
		found = append(found, string(text))
	}
	return found
}

func TestReplace(t *testing.T) {
	folder := t.TempDir()
	names := []string{"a", "b", "deep/er/c"}
	for i, step := range []struct {
		content files
		want    []string
	}{
		{files{"a": {"1", 0o644}, "deep/er/c": {"3", 0o400}}, []string{"1", "-", "3"}},
		{files{"a": {"2", 0o644}, "b": {"b", 0o644}}, []string{"2", "b", "-"}},
		{files{}, []string{"-", "-", "-"}},
		{files{"b": {"back", 0o600}}, []string{"-", "back", "-"}},
	} {
		if err := replace(folder, step.content, -1); err != nil {
			t.Fatal(err)
		}
		if got := read(t, folder, names...); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		// One link for each first part, ..data, and the folder it leads to: nothing of the step before.
		if want := len(step.content) + 2; len(entries) != want {
			t.Errorf("step %d: %d entries, want %d", i, len(entries), want)
		}
		for name, file := range step.content {
			info, err := os.Stat(filepath.Join(folder, name))
			if err != nil || info.Mode() != file.mode {
				t.Errorf("step %d: %s has mode %v, error %v, want %v", i, name, info.Mode(), err, file.mode)
			}
		}
	}
}

// A reader that opened ..data sees one state of the volume, never half of it.
func TestReplaceIsOneStep(t *testing.T) {
	folder := t.TempDir()
	state := func(text string) files { return files{"a": {text, 0o644}, "b": {text, 0o644}} }
	if err := replace(folder, state("0"), -1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		defer close(done)
		for _, text := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			if err := replace(folder, state(text), -1); err != nil {
				done <- err
				return
			}
		}
	}()
	for {
		data, err := filepath.EvalSymlinks(filepath.Join(folder, "..data"))
		if err == nil {
			got := read(t, data, "a", "b")
			// The state may have been removed meanwhile, from whichever file on.
			if got[0] != "-" && got[1] != "-" && got[0] != got[1] {
				t.Fatalf("saw %q", got)
			}
		}
		select {
		case err, failed := <-done:
			if failed {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
