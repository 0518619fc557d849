//go:build !linux

package proc

import (
	"errors"
	"syscall"
)

// CPUs fails: processes are bound to CPUs and accounted by what Linux offers.
func CPUs() ([]int, error) {
	return nil, errors.New("the load suite needs Linux: it reads /proc and binds processes to CPUs")
}

// Pin does nothing.
func Pin([]int) error { return nil }

// RaiseFileLimit does nothing.
func RaiseFileLimit(uint64) (uint64, error) { return 0, nil }

func startOn(_ []int, start func() error) error { return start() }

func childAttributes() *syscall.SysProcAttr { return nil }
