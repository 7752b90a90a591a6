"""What NAT's entry point loads. Cheap to import: frameworks and Dynamo are imported where they are used."""
