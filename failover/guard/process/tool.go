package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
)

// outputLimit bounds what is kept of a tool's output; the end is kept.
const outputLimit = 64 << 20

// Output runs a tool to its end with stdin as input and returns its standard
// output. When ctx ends it is killed. The error holds the end of its standard
// error.
func (s *Supervisor) Output(ctx context.Context, spec Spec, stdin string) ([]byte, error) {
	in, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, outW, err := os.Pipe()
	if err != nil {
		inW.Close()
		return nil, err
	}
	defer out.Close()
	errs, errW, err := os.Pipe()
	if err != nil {
		inW.Close()
		outW.Close()
		return nil, err
	}
	defer errs.Close()
	spec.Files = [3]*os.File{in, outW, errW}
	p, err := s.Start(ctx, spec)
	outW.Close()
	errW.Close()
	if err != nil {
		inW.Close()
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	var streams sync.WaitGroup
	streams.Go(func() { _, _ = io.WriteString(inW, stdin); inW.Close() })
	streams.Go(func() { _, _ = io.Copy(&stdout, io.LimitReader(out, outputLimit)); _, _ = io.Copy(io.Discard, out) })
	streams.Go(func() { _, _ = io.Copy(&stderr, io.LimitReader(errs, outputLimit)); _, _ = io.Copy(io.Discard, errs) })
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
	streams.Wait()
	if err := p.Err(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", spec.Path, err, tail(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func tail(s string) string {
	const limit = 600
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		return "…" + s[len(s)-limit:]
	}
	return s
}
