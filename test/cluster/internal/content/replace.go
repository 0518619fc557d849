package content

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// replace makes a folder hold exactly the files, in one step for whoever reads them, the way that programs which watch Kubernetes' volumes
// expect it. What they open are links through a link that is exchanged:
//
//	token -> ..data/token      ..data -> ..1730000000      ..1730000000/token
//
// The new files are written beside the old, then ..data is renamed over, then the old ones and links to files that are no more go. The
// group owns the files if it is not negative.
func replace(folder string, content files, group int) error {
	fresh, err := os.MkdirTemp(folder, "..")
	if err != nil {
		return err
	}
	if err := fill(fresh, content, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	data := filepath.Join(folder, "..data")
	old, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := filepath.Join(folder, "..data_tmp")
	if err := os.Symlink(filepath.Base(fresh), next); err != nil {
		return err
	}
	if err := os.Rename(next, data); err != nil {
		return err
	}
	if err := link(folder, content); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(folder, old))
}

func fill(folder string, content files, group int) error {
	if err := os.Chmod(folder, 0o755); err != nil {
		return err
	}
	for name, file := range content {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := file.mode
		if group >= 0 {
			mode |= (mode & 0o600) >> 3 // the group may what the owner may
		}
		if err := os.WriteFile(path, []byte(file.content), mode); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			return err
		}
		if group >= 0 {
			if err := os.Chown(path, 0, group); err != nil {
				return err
			}
		}
	}
	return nil
}

// link makes the links that readers use, one for each first part of a path, and removes those that lead nowhere now.
func link(folder string, content files) error {
	wanted := map[string]bool{}
	for name := range content {
		first, _, _ := strings.Cut(name, "/")
		wanted[first] = true
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, "..") {
			continue
		}
		if wanted[name] {
			delete(wanted, name)
			continue
		}
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	for name := range wanted {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}
