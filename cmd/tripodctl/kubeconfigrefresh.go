package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
)

// mend has the plain contexts of a kubeconfig lead to a member that answers now.
// The file is replaced as a whole, so that a kubectl that reads it meanwhile sees
// the old or the new one.
func (k kubeconfig) mend(ctx context.Context, out io.Writer) error {
	config, err := clientcmd.LoadFromFile(k.refresh)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	found := map[string]string{} // each hub is asked once
	all, changed, err := lead(config, func(members []fleetMember) (server string, err error) {
		key := strings.Join(addresses(members), ",")
		if found[key] == "" {
			found[key], err = firstMember(ctx, addresses(members))
		}
		return found[key], err
	})
	switch {
	case err != nil:
		return err
	case all == 0:
		return fmt.Errorf("%s does not say which members the hub has: make it anew with tripodctl kubeconfig", k.refresh)
	case changed == 0:
		fmt.Fprintf(out, "%s leads to a member that answers\n", k.refresh)
		return nil
	}
	text, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	if err := replaceFile(k.refresh, text); err != nil {
		return fmt.Errorf("replace the kubeconfig: %w", err)
	}
	fmt.Fprintf(out, "%s leads to another member now: %d contexts changed\n", k.refresh, changed)
	return nil
}

func replaceFile(path string, text []byte) error {
	next, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next.Name()) }() // gone already when all went well
	if _, err = next.Write(text); err != nil {
		_ = next.Close()
		return err
	}
	if err := next.Close(); err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}
