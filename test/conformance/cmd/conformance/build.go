package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// built is every program that a run needs.
type built struct {
	suite   string            // the suite's test binary
	images  map[string]string // programs by the name of their image
	version string            // of the gateway
	crds    string            // folder of the experimental channel's CustomResourceDefinitions
}

// builder builds programs of the suite's module.
type builder struct{ source, work string }

// build makes the suite and its echo servers. The Go build cache makes a second time short.
func build(ctx context.Context, o *options) (*built, error) {
	b := &builder{source: filepath.Join(o.repository, "test", "conformance"), work: o.work}
	modfile, err := b.modfile(ctx)
	if err != nil {
		return nil, err
	}
	out := &built{
		suite:  filepath.Join(o.work, "suite.test"),
		images: map[string]string{"echo-basic": filepath.Join(o.work, "echo-basic"), "gatehouse": o.gatehouse, "gatehouse-proxy": o.proxy},
	}
	flags := []string{"-trimpath", "-mod=mod", "-modfile=" + modfile}
	for _, args := range [][]string{
		append([]string{"test", "-c", "-o", out.suite}, append(flags, ".")...),
		append([]string{"build", "-o", out.images["echo-basic"]}, append(flags, imagesModule+"/echo-basic")...),
	} {
		if err := b.run(ctx, b.source, "go", args...); err != nil {
			return nil, err
		}
	}
	api, err := b.output(ctx, b.source, "go", "list", "-mod=mod", "-modfile="+modfile, "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	if err != nil {
		return nil, err
	}
	out.crds = filepath.Join(strings.TrimSpace(string(api)), "config", "crd", "experimental")
	version, err := b.output(ctx, b.work, o.gatehouse, "--version")
	if err != nil {
		return nil, err
	}
	// "gatehouse version 1.2.3"
	if out.version = strings.TrimSpace(strings.TrimPrefix(string(version), "gatehouse version ")); out.version == "" {
		return nil, fmt.Errorf("%s --version says nothing", o.gatehouse)
	}
	return out, nil
}

// run runs a command; its output is shown when it fails.
func (b *builder) run(ctx context.Context, dir, name string, args ...string) error {
	cmd := b.command(ctx, dir, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// output runs a command and returns what it writes to stdout, also when it fails.
func (b *builder) output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := b.command(ctx, dir, name, args...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out, nil
}

// command prepares a command. The echo servers run in a root of their own, without the C library of this machine; the Go release is the one that
// go.mod names, as in the Makefile.
func (b *builder) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOTOOLCHAIN=auto", "GOWORK=off")
	return cmd
}
