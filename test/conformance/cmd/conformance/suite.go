package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"
)

// outcome is what came of the suite's tests, by name.
type outcome struct{ passed, failed, skipped []string }

// testLine is the line with which a test of the suite ends: "    --- PASS: TestGatewayAPI/HTTPRouteWeight (0.41s)".
var testLine = regexp.MustCompile(`^    --- (PASS|FAIL|SKIP): TestGatewayAPI/([^/ ]+) \(`)

// watchSuite runs the suite and reads its log as it comes.
func watchSuite(ctx context.Context, program string, args []string, kubeconfig, logFile string, verbose bool) (*outcome, error) {
	file, err := os.Create(logFile)
	if err != nil {
		return &outcome{}, err
	}
	defer func() { _ = file.Close() }()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	result := &outcome{}
	read := make(chan error, 1)
	go func() { read <- result.read(io.TeeReader(reader, file), verbose) }()
	runErr := cmd.Run()
	_ = writer.Close()
	if err := <-read; err != nil {
		return result, fmt.Errorf("reading the suite's log: %w", err)
	}
	switch {
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	case runErr != nil:
		return result, fmt.Errorf("the suite ended with %w; see %s", runErr, logFile)
	case len(result.passed) == 0:
		return result, errors.New("no test ran")
	}
	return result, nil
}

func (o *outcome) read(log io.Reader, verbose bool) error {
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		if verbose {
			fmt.Print(line)
		}
		if match := testLine.FindStringSubmatch(line); match != nil {
			switch match[1] {
			case "PASS":
				o.passed = append(o.passed, match[2])
			case "FAIL":
				o.failed = append(o.failed, match[2])
			case "SKIP":
				o.skipped = append(o.skipped, match[2])
			}
			if !verbose && match[1] != "SKIP" {
				fmt.Println(line[4 : len(line)-1])
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
