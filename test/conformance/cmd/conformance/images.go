package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The suite's echo servers are programs of a module of their own, which the suite's helpers import too. Not every module mirror serves it;
// the sources were part of the suite itself until v1.6. So where the module cannot be had, a module of the same name is put together from
// those in the module cache, at build time. Nothing of it is kept in this repository.
const (
	imagesModule  = "sigs.k8s.io/gateway-api-conformance-images"
	imagesVersion = "v0.2.0"
	suiteModule   = "sigs.k8s.io/gateway-api/conformance"
	suiteVersion  = "v1.7.0"
	// olderSuite is the last version of the suite that holds the sources.
	olderSuite = "v1.6.3"
)

// modfile prepares a go.mod beside the sources' own in which the images module can be found, and returns its path.
func (b *builder) modfile(ctx context.Context) (string, error) {
	path := filepath.Join(b.work, "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(b.source, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(b.work, name), text, 0o644); err != nil {
			return "", err
		}
	}
	if _, err := b.module(ctx, imagesModule, imagesVersion); err == nil {
		return path, nil
	}
	older, err := b.module(ctx, suiteModule, olderSuite)
	if err != nil {
		return "", fmt.Errorf("neither %s@%s nor the sources within %s@%s can be downloaded: %w", imagesModule, imagesVersion, suiteModule,
			olderSuite, err)
	}
	copied := filepath.Join(b.work, "images")
	if err := b.copyImages(filepath.Join(older, "echo-basic"), copied); err != nil {
		return "", err
	}
	return path, b.run(ctx, b.source, "go", "mod", "edit", "-replace", imagesModule+"="+copied, path)
}

// module returns the folder of a module in the module cache.
func (b *builder) module(ctx context.Context, name, version string) (string, error) {
	out, err := b.output(ctx, b.work, "go", "mod", "download", "-json", name+"@"+version)
	var got struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &got); jsonErr == nil && got.Error != "" {
		return "", errors.New(got.Error)
	}
	return got.Dir, err
}

// copyImages makes the images module out of the older sources.
func (b *builder) copyImages(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, "echo-basic", below)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		moved := strings.ReplaceAll(string(text), `"`+suiteModule+`/echo-basic`, `"`+imagesModule+`/echo-basic`)
		return os.WriteFile(target, []byte(moved), 0o644)
	})
	if err != nil {
		return err
	}
	const gomod = "module " + imagesModule + "\n\ngo 1.26.0\n\nrequire (\n\tgolang.org/x/net v0.61.0\n\tgoogle.golang.org/grpc v1.84.0\n\tgoogle.golang.org/protobuf v1.36.11\n)\n"
	return os.WriteFile(filepath.Join(to, "go.mod"), []byte(gomod), 0o644)
}
