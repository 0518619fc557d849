package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Images maps names of images to programs of the host. It is a folder of links, so that whoever may write it adds images to a running
// cluster.
type Images struct{ Folder string }

// ErrNoImage says that no program stands for an image.
var ErrNoImage = errors.New("no local program is loaded for image")

// ImageName is what identifies an image here: the last part of its name, without tag and digest. registry.example/team/echo:v1@sha256:... is
// echo.
func ImageName(image string) string {
	name, _, _ := strings.Cut(path.Base(image), "@")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// Load makes a program stand for an image, in place of the one that did before. The program is an executable file; containers that run are
// not affected.
func (i Images) Load(image, program string) error {
	name := ImageName(image)
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`).MatchString(name) {
		return fmt.Errorf("image name %q: want lower-case letters, digits and . _ - between them", image)
	}
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	info, err := os.Stat(program)
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("image %s: %s is not an executable file", name, program)
	}
	if err := os.MkdirAll(i.Folder, 0o755); err != nil {
		return err
	}
	temporary := filepath.Join(i.Folder, "."+name)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(program, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(i.Folder, name))
}

// program returns the program that stands for an image.
func (i Images) program(image string) (string, error) {
	program, err := filepath.EvalSymlinks(filepath.Join(i.Folder, ImageName(image)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w %q", ErrNoImage, image)
	}
	return program, err
}
