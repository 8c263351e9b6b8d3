// Package crds embeds the CRD manifests that controller-gen makes of the kinds.
package crds

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// files holds one CustomResourceDefinition per file.
//
//go:embed *.yaml
var files embed.FS

// All are the CRDs, read anew: the caller owns them.
func All() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*apiextensionsv1.CustomResourceDefinition
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(data, crd); err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		all = append(all, crd)
	}
	if len(all) == 0 {
		return nil, errors.New("no CRD is embedded: run `make generate`")
	}
	return all, nil
}
