// Package bigtable replaces flux/dependencies/bigtable, a client of Google's Bigtable.
package bigtable

import "context"

type Provider any

type Dependency struct{ Provider Provider }

func (Dependency) Inject(ctx context.Context) context.Context { return ctx }

type DefaultProvider struct{}

type ErrorProvider struct{}
