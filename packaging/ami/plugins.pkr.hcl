# In a file of its own: Packer before 1.7, which had the plugin built in, doesn't know this block.
packer {
  required_version = ">= 1.10"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}
