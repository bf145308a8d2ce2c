variable "region" {
  description = "Where the images are built. The last known good in them is good for any region: the document is stored whole."
  type        = string
  default     = "us-east-1"
}

variable "subnet_id" {
  description = "A subnet with a way to the internet, for the build; null for the default VPC's."
  type        = string
  default     = null
}

variable "packages" {
  description = "The directory of the packages, as `make packages` leaves them."
  type        = string
  default     = "../../target/packages"
}

variable "version" {
  description = "Of the packages: the part of their names between `trailblazer` and the architecture."
  type        = string
  default     = "0.1.0-1"
}

variable "kms_key_id" {
  description = "The key of the images' snapshots; null for the account's default key of EBS."
  type        = string
  default     = null
}

variable "instance_types" {
  description = "What the images are built on, by architecture."
  type        = map(string)
  default = {
    amd64 = "t3.small"
    arm64 = "t4g.small"
  }
}

variable "tags" {
  description = "More tags for the images and their snapshots."
  type        = map(string)
  default     = {}
}
